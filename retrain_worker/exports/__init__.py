"""A version in, a folder that classifies images without labelloop out: one module of torch, then each format."""
