"""A search over settings: what is varied, what each trial gave, which was best. Records in object storage."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labelloop.clock import now, stamp
from labelloop.config.project import ProjectConfig, parse_config
from labelloop.config.training import Positive, in_words
from labelloop.errors import AlreadyExistsError, CorruptObjectError, NotFoundError, SettingsError
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, load, reading, write
from labelloop.objects.storage import ObjectStore

PREFIX = "studies/"
ATTEMPTS = 5  # of one trial; a worker that died counts, too: settings may ask for more memory than there is
ENDED = frozenset({"complete", "pruned", "failed"})
TUNABLE = ("backbone.", "retrain.")
Path = tuple[str, ...]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Range(_FrozenModel):
    """Values that one setting may take: a list, or an interval of integers or of real numbers."""

    choice: tuple[Any, ...] = ()
    integer: tuple[int, int] | None = None
    step: Positive = 1  # of ``integer``
    real: tuple[float, float] | None = None
    log: bool = False  # of ``real``: drawn evenly over its orders of magnitude

    @model_validator(mode="after")
    def _one(self) -> Range:
        kinds = [bool(self.choice), self.integer is not None, self.real is not None]
        if sum(kinds) != 1:
            raise ValueError("give one of choice: [...], integer: [low, high], real: [low, high]")
        low, high = self.integer or self.real or (0, 0)
        if low > high or (self.log and low <= 0):
            raise ValueError("the lower end must not lie above the upper one, and log needs it above 0")
        return self


class Search(_FrozenModel):
    """What `labelloop tune` does: a YAML file of configs/tune."""

    sampler: Literal["tpe", "random", "grid"] = "tpe"
    pruner: Literal["none", "median", "hyperband"] = "median"
    trials: Positive = 20
    seed: int = 1234
    base: dict[str, Any] = Field(default_factory=dict)  # settings of all trials that are not the project's
    space: dict[str, Range]  # dotted name of a setting -> its range

    @model_validator(mode="after")
    def _fits(self) -> Search:
        if not self.space:
            raise ValueError("space: names at least one setting")
        for name in self.space:
            if not name.startswith(TUNABLE):
                raise ValueError(f"{name} cannot be searched: only settings of backbone: and retrain: can")
        if self.sampler == "grid" and any(not r.choice for r in self.space.values()):
            raise ValueError("sampler: grid needs choice: [...] for every setting")
        return self

    @property
    def count(self) -> int:
        """Trials in all: a grid has as many as it has points."""
        return math.prod(len(r.choice) for r in self.space.values()) if self.sampler == "grid" else self.trials

    def point(self, number: int) -> dict[str, Any]:
        """The settings of one trial of a grid, in the order of the file."""
        points = itertools.product(*(r.choice for r in self.space.values()))
        return dict(zip(self.space, next(itertools.islice(points, number, None)), strict=True))


@dataclass(frozen=True, slots=True)
class Study:
    """One search on one snapshot. ``config``: the project's, as it was when it began, with ``search.base``."""

    name: str
    search: Mapping[str, Any]
    snapshot: str
    config: Mapping[str, Any]
    by: str
    at: str
    cancelled: bool = False

    @property
    def rules(self) -> Search:
        """The search, validated."""
        return parse_search(self.search, self.name)

    def config_with(self, params: Mapping[str, Any]) -> ProjectConfig:
        """The config of one trial; SettingsError names what does not fit."""
        return parse_config(applied(self.config, params), f"study {self.name}")

    def over(self, config: ProjectConfig, params: Mapping[str, Any]) -> ProjectConfig:
        """``config`` with what the search set for all trials, and with one trial's settings; SettingsError."""
        base = {part: settings for part, settings in self.rules.base.items() if f"{part}." in TUNABLE}
        whole = applied(merged(config.model_dump(mode="json"), base), params)
        return parse_config(whole, f"study {self.name} over the project's config")


@dataclass(frozen=True, slots=True)
class Trial:
    """One set of settings and what came of it. ``curve``: (accuracy, log loss) on the validation part, by epoch."""

    number: int
    params: Mapping[str, Any]
    state: str = "running"  # running | complete | pruned | failed
    attempt: int = 1
    worker: str = ""
    started_at: str = ""
    ended_at: str | None = None
    accuracy: float | None = None  # of the best epoch, on the validation part
    loss: float | None = None
    curve: tuple[tuple[float, float], ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)  # seconds, parameters, bytes, ms
    why: str = ""  # of a failure

    @property
    def ended(self) -> bool:
        """True where it needs no further run."""
        return self.state in ENDED

    def same_run(self, other: Trial) -> bool:
        """True where it is under way, in the same attempt of the same worker."""
        begun = (other.attempt, other.worker, other.started_at)
        return not self.ended and (self.attempt, self.worker, self.started_at) == begun


class StudyStore:
    """One project's studies."""

    def __init__(self, store: ObjectStore, damage: Damage | None = None) -> None:
        self._store = store
        self.damage = damage or Damage()

    def begin(self, search: Search, *, snapshot: str, config: ProjectConfig, by: str) -> Study:
        """Write it down; the watcher queues its trials. SettingsError where the settings do not fit each other."""
        whole = merged(config.model_dump(mode="json"), search.base)
        study = Study(stamp(), search.model_dump(mode="json"), snapshot, whole, by, now())
        ends = {name: _ends(r) for name, r in search.space.items()}
        for side in (0, 1):
            checked = study.config_with({name: values[side] for name, values in ends.items()})
            if checked.retrain.validation == 0:
                raise SettingsError("a search judges by the validation part: set retrain.validation above 0")
        self._put(study)
        return study

    def all(self, *, without: Container[str] = ()) -> list[Study]:
        """Those that can be read, oldest first; none of those named ``without``."""
        listed = (info for info in self._store.list(PREFIX)
                  if info.key.endswith("/study.json") and info.key.split("/")[1] not in without)  # fmt: skip
        studies = self.damage.intact(listed, lambda key: self.get(key.split("/")[1]))
        return sorted(studies.values(), key=lambda s: s.name)

    def names(self) -> list[str]:
        """Oldest first; reads none of them."""
        keys = (info.key for info in self._store.list(PREFIX))
        return sorted({key.split("/")[1] for key in keys if key.endswith("/study.json")})

    def get(self, name: str) -> Study:
        """NotFoundError where there is none; CorruptObjectError."""
        key = f"{PREFIX}{name}/study.json"
        try:
            return study_from(self._store.get(key), key)
        except NotFoundError as error:
            raise NotFoundError(f"there is no study {name}; `labelloop tune list` shows them") from error

    def cancel(self, name: str) -> Study:
        """No further trial begins, and running ones end after their epoch."""
        study = replace(self.get(name), cancelled=True)
        self._put(study)
        return study

    def trials(self, name: str) -> list[Trial]:
        """Those that can be read, by number; another one is run again."""
        prefix = f"{PREFIX}{name}/trials/"
        trials = self.damage.intact(self._store.list(prefix), self._trial, prefix)
        return sorted(trials.values(), key=lambda t: t.number)

    def trial(self, name: str, number: int) -> Trial | None:
        """None before it began, and where it cannot be read: it begins again."""
        try:
            return self._trial(_trial_key(name, number))
        except (NotFoundError, CorruptObjectError):
            return None

    def _trial(self, key: str) -> Trial:
        return trial_from(self._store.get(key), key)

    def put(self, name: str, trial: Trial) -> None:
        """Write one trial, in place of what was known of it."""
        self._store.put(_trial_key(name, trial.number), write(Kind.TRIAL, asdict(trial)))

    def take(self, name: str, trial: Trial) -> bool:
        """Begin its next attempt; False where somebody else has begun or ended it meanwhile."""
        key, raw = _trial_key(name, trial.number), write(Kind.TRIAL, asdict(trial))
        try:
            if (held := self._held(key)) is None:
                self._store.put(key, raw, if_absent=True)
                return True
            kept, etag = held
            if kept and (kept.ended or kept.attempt >= trial.attempt):
                return self._store.get(key) == raw
            self._store.swap(key, raw, etag=etag)
        except AlreadyExistsError:  # ours, too: its first answer was lost
            return self._store.get(key) == raw
        return True

    def end(self, name: str, trial: Trial) -> Trial:
        """Write how it ended, unless somebody has begun it again or ended it since; what holds now."""
        key = _trial_key(name, trial.number)
        if (held := self._held(key)) is None:
            raise NotFoundError(f"trial {trial.number} of {name} was removed while it was under way")
        kept, etag = held
        if kept and not kept.same_run(trial):
            return kept
        try:
            self._store.swap(key, write(Kind.TRIAL, asdict(trial)), etag=etag)
        except AlreadyExistsError:  # or ours, whose first answer was lost
            return self._trial(key)
        return trial

    def _held(self, key: str) -> tuple[Trial | None, str] | None:
        """(what is kept of a trial, its etag): no trial where it cannot be read, so that a write makes it whole."""
        try:
            data, etag = self._store.get_with_etag(key)
        except NotFoundError:
            return None
        try:
            return trial_from(data, key), etag
        except UNREADABLE:
            return None, etag

    def _put(self, study: Study) -> None:
        self._store.put(f"{PREFIX}{study.name}/study.json", write(Kind.STUDY, asdict(study)))


def study_from(raw: bytes, key: str) -> Study:
    """A search; CorruptObjectError, FormatError."""
    study = load(Kind.STUDY, raw, Study, key)
    with reading(key):
        if key != f"{PREFIX}{study.name}/study.json":
            raise ValueError(f"it is the study {study.name}")
        Search.model_validate(study.search)
    return study


def trial_from(raw: bytes, key: str) -> Trial:
    """One of its trials; CorruptObjectError, FormatError."""
    trial = load(Kind.TRIAL, raw, Trial, key)
    with reading(key):
        if not key.endswith(f"/{trial.number:05d}.json"):
            raise ValueError(f"it is the trial {trial.number}")
    return trial


def missing(study: Study, trials: Sequence[Trial]) -> list[int]:
    """Numbers of the trials that still have to run."""
    if study.cancelled:
        return []
    ended = {t.number for t in trials if t.ended}
    return [n for n in range(study.rules.count) if n not in ended]


def best(trials: Sequence[Trial]) -> Trial | None:
    """The complete trial with the highest accuracy; among equals the one with the lower loss, then the earlier one."""
    done = [t for t in trials if t.state == "complete" and t.accuracy is not None]
    return max(done, key=lambda t: (t.accuracy or 0.0, -(t.loss or 0.0), -t.number), default=None)


def parse_search(data: Any, source: str) -> Search:
    """SettingsError names the field and the file."""
    try:
        return Search.model_validate(data or {})
    except ValidationError as error:
        lines = [f"  {in_words(e)}" for e in error.errors()]
        raise SettingsError(f"{source} is not a valid search:\n" + "\n".join(lines)) from error


def applied(config: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with settings by their dotted names; a number names a place in a list."""
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    for name, value in params.items():
        _set(changed, tuple(name.split(".")), value, name)
    return changed


def _set(into: Any, path: Path, value: Any, name: str) -> None:
    key: Any = int(path[0]) if isinstance(into, list) else path[0]
    if isinstance(into, list) and key >= len(into):
        raise SettingsError(f"{name}: there is no place {key} in a list of {len(into)}")
    if len(path) == 1:
        into[key] = value
        return
    if isinstance(into, dict):
        into.setdefault(key, {})
    _set(into[key], path[1:], value, name)


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``changes`` over ``config``, part by part; lists and options are taken as they are."""
    combined = dict(config)
    for name, value in changes.items():
        inner = combined.get(name)
        keep = isinstance(value, Mapping) and isinstance(inner, Mapping) and name != "options"
        combined[name] = merged(inner, value) if keep and inner is not None else value
    return combined


def _ends(span: Range) -> tuple[Any, Any]:
    pair = span.integer or span.real
    return pair if pair else (span.choice[0], span.choice[-1])


def _trial_key(name: str, number: int) -> str:
    return f"{PREFIX}{name}/trials/{number:05d}.json"
