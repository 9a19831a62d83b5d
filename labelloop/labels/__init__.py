"""What Label Studio's label configs and results mean. Pure."""
