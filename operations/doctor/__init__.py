"""`labelloop doctor`: a deployment's wiring from end to end, one module per area, a remedy with each finding."""
