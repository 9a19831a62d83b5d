"""Measurements of what goes wrong."""
