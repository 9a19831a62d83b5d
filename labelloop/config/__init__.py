"""A project's YAML and the environment, as frozen values."""
