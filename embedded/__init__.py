"""The embedded stack: real Label Studio, Valkey and S3 plus our own services on one machine, without Docker."""
