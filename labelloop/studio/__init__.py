"""The one place that speaks to Label Studio."""
