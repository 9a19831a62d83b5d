"""Everything the gate looks at."""
