"""Images that mean harm: seeded mutations of good ones, and the worst that was ever found."""
