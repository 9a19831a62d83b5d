"""The evaluation report of a run: evidence in, one JSON document and one page out. docs/report.md explains the figures."""
