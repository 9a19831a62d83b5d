"""Frozen records that travel between rooms, and their JSON form."""
