"""Versions and how they learn."""
