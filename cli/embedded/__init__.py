"""Real Label Studio, Valkey and S3 on one machine, without Docker."""
