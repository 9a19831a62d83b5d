"""Frozen values in, pages for a terminal out."""
