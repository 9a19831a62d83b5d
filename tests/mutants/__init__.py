"""Mutation testing of the rules: `make mutants`. One small change in a rule must fail a test of its room."""
