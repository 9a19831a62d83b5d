"""Backup, restore, tidying, damaged objects."""
