"""The deployed version's order and predictions, into Label Studio."""
