"""The loop's vocabulary, rules and stores, shared by all services."""

__version__ = "0.1.0"
