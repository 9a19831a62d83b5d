"""A run's evaluation report: evidence in, one JSON document and one page out. docs/report.md explains the figures."""
