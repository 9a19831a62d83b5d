"""Features and labels in, fitted heads out."""
