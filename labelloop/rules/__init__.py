"""What is decided, by pure functions: they read no store."""
