"""The colours of outcomes, the same in every view."""

from __future__ import annotations

COLOURS = {"promote": "green", "hold": "yellow", "reject": "red", "failed": "red", "running": "cyan"}
