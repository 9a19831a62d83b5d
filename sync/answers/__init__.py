"""What people answered in Label Studio."""
