"""The verbs of `labelloop`, one module per theme; each function is thin."""
