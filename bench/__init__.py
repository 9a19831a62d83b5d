"""Measurements: `make bench NAME=…`; each prints a table and a JSON line per figure."""
