"""Projects: made, wired, checked, drained."""
