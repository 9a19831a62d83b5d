"""Findings in, one page of HTML out: no script, nothing fetched, everything that people wrote escaped."""

from __future__ import annotations

import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from retrain_worker.report.findings import Findings
from retrain_worker.report.view import view


def page(findings: Findings) -> str:
    """The whole file; what UTF-8 cannot hold, such as half a surrogate in a name, becomes a question mark."""
    html = _template().render(view(findings))
    return html.encode("utf-8", "replace").decode()


@functools.cache
def _template() -> Template:
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")
