"""Run records: every attempt of every job that decides something, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from labelloop.clock import now, stamp
from labelloop.records import canonical
from labelloop.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt. ``outcome``: running, promote, hold, reject, or failed."""

    id: str
    kind: str  # refresh | retrain
    snapshot: str
    config: str
    attempt: int
    started_at: str
    worker: str
    queued_at: str | None = None
    outcome: str = "running"
    reasons: tuple[str, ...] = ()
    version: str | None = None
    ended_at: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """True where it came to a verdict: the same inputs need no further run."""
        return self.outcome in {"promote", "hold", "reject"}


class RunStore:
    """One project's run records, by time. An ended record never changes and is read once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._ended: dict[str, Run] = {}
        self._settled = ""  # every record up to this key has ended

    def start(
        self, kind: str, *, snapshot: str, config: str, attempt: int, worker: str, queued_at: str | None = None
    ) -> Run:
        """Write the record before any work is done."""
        run = Run(f"{stamp()}-{kind}", kind, snapshot, config, attempt, now(), worker, queued_at)
        self._put(run)
        return run

    def end(
        self, run: Run, outcome: str, reasons: tuple[str, ...], *, version: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Run:  # fmt: skip
        """Write how it ended."""
        ended = replace(run, outcome=outcome, reasons=reasons, version=version, ended_at=now(), detail=detail or {})
        self._put(ended)
        return ended

    def all(self) -> list[Run]:
        """Every run, oldest first; what was settled before is not listed again."""
        running = []
        settled = True
        for info in self._store.list("runs/", start_after=_earlier(self._settled)):
            run = self._ended.get(info.key) or self._read(info.key)
            if run.outcome == "running":
                running.append(run)
                settled = False
            else:
                self._ended[info.key] = run
            self._settled = info.key if settled else self._settled
        return sorted([*self._ended.values(), *running], key=lambda r: r.id)

    def _read(self, key: str) -> Run:
        data = json.loads(self._store.get(key))
        return Run(**{**data, "reasons": tuple(data["reasons"])})

    def _put(self, run: Run) -> None:
        self._store.put(f"runs/{run.id}.json", canonical(asdict(run)))


def _earlier(key: str) -> str:
    """The same key an hour before: records of a worker whose clock is behind, or whose write was held up."""
    if not key:
        return ""
    moment = datetime.strptime(key.removeprefix("runs/")[:15], "%Y%m%dT%H%M%S") - timedelta(hours=1)
    return f"runs/{moment:%Y%m%dT%H%M%S}"
