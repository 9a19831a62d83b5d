"""RQ jobs: snapshot in, evaluated and registered model out."""
