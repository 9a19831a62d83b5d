"""Real processes that several tests and measurements begin."""
