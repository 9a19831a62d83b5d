"""The terminal: the app, the consoles, errors in words, progress."""
