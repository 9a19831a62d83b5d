"""Where requests come in: read whole, bounded, in lanes, before a thread sees them."""
