"""Seeded schedules of faults against the real stack: `make faults`. See docs/faults.md."""
