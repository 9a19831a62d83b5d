"""Evaluation reports of versions, as they are kept: one JSON document and one page each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from labelloop.errors import NotFoundError
from labelloop.objects.formats import as_object, reading
from labelloop.objects.storage import ObjectStore
from labelloop.records.json import canonical


@dataclass(frozen=True, slots=True)
class KeptReport:
    """``html`` is one file that needs no other."""

    json: Mapping[str, Any]
    html: str


def keep_report(store: ObjectStore, version: str, report: KeptReport) -> None:
    """The page goes last: where it is, the document is, too."""
    store.put(_key(version, "json"), canonical(dict(report.json)))
    store.put(_key(version, "html"), report.html.encode())


def kept_report(store: ObjectStore, version: str) -> KeptReport | None:
    """None where none was made; CorruptObjectError."""
    try:
        page, document = store.get(_key(version, "html")), store.get(_key(version, "json"))
    except NotFoundError:
        return None
    with reading(_key(version, "html")):
        html = page.decode()
        if not html.rstrip().endswith("</html>"):
            raise ValueError("its end is missing")
    with reading(_key(version, "json")):
        return KeptReport(as_object(json.loads(document)), html)


def _key(version: str, form: str) -> str:
    return f"reports/{version}.{form}"
