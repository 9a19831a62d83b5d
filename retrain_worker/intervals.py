"""Counts in, 95 % intervals of shares out."""

from __future__ import annotations

from labelloop.rules.intervals import Z95, wilson
from labelloop.rules.paired_intervals import mean_interval, paired_interval

__all__ = ["Z95", "mean_interval", "paired_interval", "wilson"]
