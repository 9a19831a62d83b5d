"""Run records: every attempt of every job that decides something, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from labelloop.clock import now, parse, stamp
from labelloop.code import code_version, training_code
from labelloop.errors import AlreadyExistsError, NotFoundError, SupersededError
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, load, reading, write
from labelloop.objects.storage import ObjectInfo, ObjectStore
from labelloop.records.runs import Run, match

PREFIX = "runs/"
READERS = 16
CHUNK = 64  # records read ahead where many are looked through


@dataclass(frozen=True, slots=True)
class Claim:
    """A run's right to deliver. ``check``: SupersededError where it was given up, or its wish has an answer."""

    run: Run
    check: Callable[[], None]


class RunStore:
    """One project's run records, by time. An ended record never changes and is read once."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None) -> None:
        self._store = store
        self.damage = damage or Damage()
        self._ended: dict[str, Run] = {}
        self._settled = ""  # every record up to this key has ended

    def start(  # noqa: PLR0913 -- what a record begins with
        self, kind: str, *, snapshot: str, config: str, attempt: int, worker: str, queued_at: str | None = None,
        answers: Iterable[str] = (), recipe: str = "", images: int | None = None, wish: str = "",
    ) -> Run:  # fmt: skip
        """Write the record before any work is done."""
        name = f"{stamp()}-{kind}"
        run = Run(
            name, kind, snapshot, config, attempt, now(), worker, queued_at, answers=tuple(answers), recipe=recipe,
            code=code_version(), training=training_code(), images=images, wish=wish,
        )  # fmt: skip
        self._put(run)
        return run

    def end(
        self, run: Run, outcome: str, reasons: tuple[str, ...], *, version: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Run:  # fmt: skip
        """Write how it ended, once; SupersededError where it has ended already: who comes second changes nothing."""
        ended = replace(run, outcome=outcome, reasons=reasons, version=version, ended_at=now(), detail=detail or {})
        raw = write(Kind.RUN, asdict(ended))
        try:
            data, etag = self._store.get_with_etag(_key(run.id))
        except UNREADABLE:  # too large to be a record
            self._store.put(_key(run.id), raw)
            return ended
        self._require_running(run, data)
        try:
            self._store.swap(_key(run.id), raw, etag=etag)
        except AlreadyExistsError:
            held = self._store.get(_key(run.id))
            if held != raw:  # ours: its first answer was lost
                self._require_running(run, held)
                raise
        return ended

    def require_running(self, run: Run) -> None:
        """SupersededError where somebody has ended it: its worker was believed dead."""
        with suppress(*UNREADABLE):
            self._require_running(run, self._store.get(_key(run.id)))

    def _require_running(self, run: Run, data: bytes) -> None:
        try:
            current = run_from(data, _key(run.id))
        except UNREADABLE:  # damaged: its end makes it whole
            return
        if current.outcome != "running":
            why = "; ".join(current.reasons)
            raise SupersededError(f"run {run.id} was ended as {current.outcome} while it was under way: {why}")

    def all(self) -> list[Run]:
        """Every run that can be read, oldest first; what was settled before is not listed again."""
        running = []
        settled = True
        self.damage.recheck(PREFIX, self._read)
        for info in self._store.list(PREFIX, start_after=_earlier(self._settled)):
            run = self._ended.get(info.key) or (None if self.damage.is_noted(info) else self._read_if_kept(info))
            if run is None:
                continue
            if run.outcome == "running":
                running.append(run)
                settled = False
            else:
                self._ended[info.key] = run
            self._settled = info.key if settled else self._settled
        return sorted([*self._ended.values(), *running], key=lambda r: r.id)

    def newest(self, kind: str = "") -> Iterator[Run]:
        """Every run, or those of one kind, newest first, read only as far as they are asked for."""
        infos = [info for info in self._listed() if _name(info.key).endswith(f"-{kind}" if kind else "")]
        with ThreadPoolExecutor(READERS) as pool:
            for start in range(0, len(infos), CHUNK):
                yield from filter(None, pool.map(self._read_if_kept, infos[start : start + CHUNK]))

    def ids(self) -> list[str]:
        """The id of every run, newest first; reads none of them."""
        return [_name(info.key) for info in self._listed()]

    def _listed(self) -> list[ObjectInfo]:
        return list(self._store.list(PREFIX))[::-1]

    def find(self, name: str) -> Run:
        """The run whose id begins with ``name``, or whose short id is ``name``; NotFoundError where it is not one."""
        return self._read(_key(match(self.ids(), name)))

    def _read(self, key: str) -> Run:
        return run_from(self._store.get(key), key)

    def _read_if_kept(self, info: ObjectInfo) -> Run | None:
        try:
            run = self._read(info.key)
        except NotFoundError:  # tidied away since it was listed
            return None
        except UNREADABLE as error:
            self.damage.note(info.key, error, info.etag)
            return None
        self.damage.resolved(info.key)
        return run

    def _put(self, run: Run) -> None:
        self._store.put(_key(run.id), write(Kind.RUN, asdict(run)))


def run_from(raw: bytes, key: str) -> Run:
    """A run's record; CorruptObjectError, FormatError."""
    run = load(Kind.RUN, raw, Run, key)
    with reading(key):
        if run.id != _name(key):
            raise ValueError(f"it is the record of {run.id}")
        parse(run.started_at)
    return run


def _key(name: str) -> str:
    return f"{PREFIX}{name}.json"


def _name(key: str) -> str:
    return key.removeprefix(PREFIX).removesuffix(".json")


def _earlier(key: str) -> str:
    """The same key an hour before: records of a worker whose clock is behind, or whose write was held up."""
    if not key:
        return ""
    moment = datetime.strptime(key.removeprefix(PREFIX)[:15], "%Y%m%dT%H%M%S") - timedelta(hours=1)
    return f"{PREFIX}{moment:%Y%m%dT%H%M%S}"
