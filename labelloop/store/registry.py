"""Model versions, the deployment log, rollback: the only way from a worker to the backend."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from labelloop.clock import now, parse
from labelloop.errors import (
    AlreadyExistsError,
    ConflictError,
    CorruptArtefactError,
    CorruptObjectError,
    NotFoundError,
)
from labelloop.model.classifier import Classifier, load_classifier
from labelloop.objects.copies import get_twice, put_twice
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, as_object, load, read, reading, typed, write
from labelloop.objects.storage import ObjectInfo, ObjectStore
from labelloop.records.evidence import Evaluation, Verdict
from labelloop.records.json import canonical, digest, to_dict
from labelloop.records.versions import BackboneRecord, LogEntry, Version, way_back
from labelloop.store.pauses import PauseStore
from labelloop.store.runs import Claim

REJECT = "reject"
CHANGED = "it does not have the hash that was recorded when it was made"
ASIDE = "damaged/"  # what a person has set aside keeps its number
LOG, VERSIONS, INITIAL = "deployments/", "models/versions/", "backbones/initial.json"
Lease = Callable[[str], AbstractContextManager[int]]  # name -> fencing number, which only grows


@dataclass(frozen=True, slots=True)
class Draft:
    """A version before it has a number."""

    kind: str
    backbone: str
    head: Classifier
    snapshot: str
    config: str
    code: str
    parent: str | None
    reference: str | None
    recipe: Mapping[str, Any]
    evaluation: Evaluation
    verdict: Verdict
    check_features: np.ndarray[Any, np.dtype[np.float32]]  # (k, features)


class Registry:
    """One project's models. Deploys are serialised by a lease; the log in object storage is the truth."""

    def __init__(self, store: ObjectStore, lease: Lease, damage: Damage | None = None) -> None:
        self._store = store
        self.damage = damage or Damage()
        self.lease = lease
        self.pauses = PauseStore(store, self.damage)
        self._versions: dict[str, Version] = {}
        self._log: dict[int, LogEntry] = {}
        self._backbones: dict[str, BackboneRecord] = {}
        self._initial: str | None = None

    def again(self, damage: Damage) -> Registry:
        """The same models, read afresh."""
        return Registry(self._store, self.lease, damage)

    # --- backbones

    def add_backbone(self, record: BackboneRecord, weights: bytes) -> None:
        """Weights first, record last: a record is only there when its weights are."""
        self._store.put(_weights_key(record.id), weights)
        put_twice(self._store, f"backbones/{record.id}/backbone.json", write(Kind.BACKBONE, to_dict(record)))

    def backbone(self, name: str) -> BackboneRecord:
        """One backbone's record; NotFoundError where there is none, CorruptObjectError where its copy is gone, too."""
        if name not in self._backbones:
            key = f"backbones/{name}/backbone.json"
            self._backbones[name] = get_twice(self._store, key, lambda raw: backbone_from(raw, key), self.damage)
        return self._backbones[name]

    def backbone_weights(self, record: BackboneRecord) -> bytes:
        """The weights; NotFoundError, CorruptObjectError where their hash is not the recorded one."""
        return self._verified(_weights_key(record.id), record.weights_sha256)

    def put_weights(self, record: BackboneRecord, weights: bytes) -> None:
        """Write a record's weights again; CorruptArtefactError where they are not those that were recorded."""
        if digest(weights) != record.weights_sha256:
            raise CorruptArtefactError(f"these are not the weights of {record.id}")
        self._store.put(_weights_key(record.id), weights)
        self.damage.resolved(_weights_key(record.id))

    def initial_backbone(self) -> BackboneRecord | None:
        """The backbone the project began with, or None before the first image was seen."""
        try:
            self._initial = self._initial or self._read_initial()
            return self.backbone(self._initial) if self._initial else None
        except NotFoundError:
            return None

    def _read_initial(self) -> str | None:
        """Where it cannot be read: the oldest backbone that saw no labels, which is the same."""
        try:
            return initial_from(self._store.get(INITIAL))
        except UNREADABLE as error:
            self.damage.note(INITIAL, error)
        names = {info.key.split("/")[1] for info in self._store.list("backbones/") if info.key != INITIAL}
        fresh = [record for name in names if not (record := self.backbone(name)).snapshot]
        return min(fresh, key=lambda r: (r.created_at, r.id)).id if fresh else None

    def set_initial_backbone(self, record: BackboneRecord) -> BackboneRecord:
        """Decide it once; a second caller gets the first one's."""
        try:
            self._store.put(INITIAL, canonical({"id": record.id}), if_absent=True)
            return record
        except AlreadyExistsError:
            return self.initial_backbone() or record

    def repair_initial(self) -> None:
        """Write it again, as it follows from the backbones that there are."""
        self._initial = self._read_initial()
        if self._initial and self.damage.keys(INITIAL):
            self._store.put(INITIAL, canonical({"id": self._initial}))
            self.damage.resolved(INITIAL)

    def current_backbone(self) -> BackboneRecord | None:
        """The champion's backbone, before the first version the initial one."""
        live = self.live()
        return self.backbone(self.version(live.version).backbone) if live else self.initial_backbone()

    # --- versions

    def add(self, draft: Draft) -> Version:
        """Give a draft its number; conditional write, so that two never share one."""
        head = draft.head.dump()
        sha = digest(head)
        key = f"models/heads/{sha[:32]}.safetensors"
        self._store.put(key, head)
        number = 1 + max(self._numbers(VERSIONS), default=0)
        version = _version(draft, number, key, sha)
        while not self._claim(_version_key(version.number), write(Kind.VERSION, to_dict(version))):
            version = replace(version, number=version.number + 1)
        return version

    def versions(self) -> list[Version]:
        """All versions that are kept and can be read, oldest first."""
        versions = self.damage.intact(_numbered(self._store.list(VERSIONS)), self._version_if_kept, VERSIONS)
        return sorted((v for v in versions.values() if v), key=lambda v: v.number)

    def unread(self) -> list[str]:
        """Names of versions whose record is there and cannot be read; `versions` has looked for them."""
        return [f"v{_number_in(key)}" for key in self.damage.keys(VERSIONS)]

    def _version_if_kept(self, key: str) -> Version | None:
        try:
            return self.version(f"v{_number_in(key)}")
        except NotFoundError:  # tidied away since it was listed
            return None

    def version(self, name: str) -> Version:
        """One version by name (`v7`); NotFoundError where there is none, or no longer, CorruptObjectError."""
        if name not in self._versions:
            if not re.fullmatch(r"v[0-9]{1,9}", name):
                raise NotFoundError(f"{name!r} is no version; `labelloop models` lists them")
            key = _version_key(int(name[1:]))
            try:
                self._versions[name] = version_from(self._store.get(key), key)
            except NotFoundError as error:
                raise _no_version(name) from error
        return self._versions[name]

    def forget(self, choose: Callable[[Sequence[LogEntry]], Sequence[str]]) -> list[str]:
        """Remove the version records that ``choose`` names, by the log as it is under the deploy lease.

        A deploy of one of them at the same time comes first, and it is not chosen; or comes later, and is refused.
        """
        with self.lease("deploy"):
            names = list(choose(self.deployments()))
            for name in names:
                self._store.delete(_version_key(int(name[1:])))
                self.damage.resolved(_version_key(int(name[1:])))
                self._versions.pop(name, None)
        return names

    def head(self, version: Version) -> Classifier:
        """The head, its hash verified; NotFoundError, CorruptObjectError, CorruptArtefactError."""
        return load_classifier(self._verified(version.head_key, version.head_sha256), version.labels)

    # --- deployments

    def deployments(self) -> list[LogEntry]:
        """What went live, oldest first."""
        return [entry for entry in self.decisions() if entry.action != REJECT]

    def rejected(self) -> dict[str, LogEntry]:
        """Versions that people have refused and not promoted since, with who, when and why."""
        rejected: dict[str, LogEntry] = {}
        for entry in self.decisions():
            if entry.rejected:
                rejected[entry.rejected] = entry
            else:
                rejected.pop(entry.version, None)
        return rejected

    def decisions(self) -> list[LogEntry]:
        """The whole log, oldest first; entries already read are not fetched again. What cannot be read is left out."""
        ends = [max(self._log, default=0), *(_number_in(key) - 1 for key in self.damage.keys(LOG))]
        listed = _numbered(self._store.list(LOG, start_after=_deployment_key(min(ends))))
        entries = self.damage.intact((i for i in listed if _number_in(i.key) not in self._log), self._entry, LOG)
        self._log.update({entry.number: entry for entry in entries.values()})
        return [self._log[n] for n in sorted(self._log)]

    def _entry(self, key: str) -> LogEntry:
        return entry_from(self._store.get(key), key)

    def live(self) -> LogEntry | None:
        """The newest log entry whose version can be read, or None before the first deploy."""
        for entry in reversed(self.deployments()):
            if self._is_readable(entry.version):
                return entry
        return None

    def _is_readable(self, name: str) -> bool:
        """False where its record is damaged: the version before it counts then, for all services alike."""
        key = f"{VERSIONS}{name[1:].zfill(8)}.json"
        if self.damage.looked_at(key):
            return False
        try:
            self.version(name)
        except UNREADABLE as error:
            self.damage.note(key, error)
            return False
        except NotFoundError:  # `version` raises it to those who ask
            return True
        return True

    def deploy(self, version: str, *, expected: str | None, action: str, by: str, why: str) -> LogEntry:
        """Compare-and-swap on the champion; ConflictError where it is no longer ``expected``.

        PausedError where learning is paused and the action is `deploy`, which no person has asked for.
        """
        with self.lease("deploy") as fencing:
            log = self._log_with(expected, action)
            if not self._store.exists(_version_key(int(version[1:]))):
                raise _no_version(version)
            return self._append(log, LogEntry(0, version, action, expected, by, why, now(), fencing))

    def deploy_new(self, draft: Draft, *, by: str, why: str, claim: Claim | None = None) -> Version:
        """`add` and `deploy` in one, in place of ``draft.parent``.

        ConflictError, PausedError, SupersededError (by ``claim``): nothing was added.
        """
        with self.lease("deploy") as fencing:
            log = self._log_with(draft.parent, "deploy")
            if claim:  # under the lease: nobody else can answer the wish in between
                claim.check()
            version = self.add(draft)
            entry = LogEntry(0, version.name, "deploy", draft.parent, by, why, now(), fencing)
            self._append(log, replace(entry, run=claim.run.id, wish=claim.run.wish) if claim else entry)
            return version

    def reject(self, version: str, *, by: str, why: str) -> LogEntry:
        """Note that a person refuses a version; ConflictError where it is live: that needs a rollback."""
        with self.lease("deploy") as fencing:
            log = self._whole_log()
            current = self._live_name() or ""
            if current == version:
                raise ConflictError(f"{version} is live: `labelloop rollback` goes back to the version before it")
            self.version(version)  # NotFoundError says how to find one
            entry = LogEntry(0, current, REJECT, current or None, by, why, now(), fencing, rejected=version)
            return self._append(log, entry)

    def _log_with(self, expected: str | None, action: str) -> list[LogEntry]:
        """The log in which ``expected`` is live, if learning goes on; call it under the lease."""
        if action == "deploy":  # under the lease: once it is taken after a pause, none slips through
            self.pauses.check()
        log = self._whole_log()
        current = self._live_name()
        if current != expected:
            raise ConflictError(f"{current} is live, not {expected}; decide again against {current}")
        return log

    def _live_name(self) -> str | None:
        live = self.live()
        return live.version if live else None

    def _whole_log(self) -> list[LogEntry]:
        """To be added to; FormatError where a newer release has: it knows what is live, and we do not."""
        log = self.decisions()
        last = log[-1].number if log else 0
        for key in self.damage.keys(LOG):
            if _number_in(key) > last:
                with suppress(CorruptObjectError):
                    self._entry(key)
        return log

    def _append(self, log: Sequence[LogEntry], entry: LogEntry) -> LogEntry:
        """Next to the ``log`` that was looked at: what was written since, past a lease that ran out, is a conflict."""
        taken = [entry.number for entry in log[-1:]] + [_number_in(key) for key in self.damage.keys(LOG)]
        taken += self._numbers(LOG, ASIDE)
        entry = replace(entry, number=max(taken, default=0) + 1)  # never that of a damaged one
        if not self._claim(_deployment_key(entry.number), write(Kind.DEPLOYMENT, asdict(entry))):
            raise ConflictError(f"deployment {entry.number} was written by somebody else; decide again")
        return entry

    def rollback_target(self) -> str | None:
        """The version that was live before the champion, skipping versions that were rolled back.

        Only its record is read; `labelloop.upkeep.rollback` looks at the artefacts, too.
        """
        stack = [name for name in self.way_back() if self._is_readable(name)]
        return stack[-2] if len(stack) > 1 else None

    def way_back(self) -> list[str]:
        """The versions that rollbacks go through, up to the one that counts as live."""
        stack, live = way_back(self.deployments()), self._live_name()
        while stack and stack[-1] != live:  # the newest entry's version cannot be read
            stack.pop()
        return stack

    def _numbers(self, prefix: str, *places: str) -> list[int]:
        """Of all that is listed there, and was set aside."""
        keys = [info.key for place in places or ("", ASIDE) for info in _numbered(self._store.list(place + prefix))]
        return [_number_in(key) for key in keys]

    def _claim(self, key: str, data: bytes) -> bool:
        """Write where nothing is; False where somebody else did. Ours counts: its first answer may have been lost."""
        try:
            self._store.put(key, data, if_absent=True)
            return True
        except AlreadyExistsError:
            return self._store.get(key) == data

    def _verified(self, key: str, sha256: str) -> bytes:
        """Noted where it is damaged, and where it was brought back."""
        data = self._store.get(key)
        if digest(data) != sha256:
            error = CorruptObjectError(key, CHANGED)
            self.damage.note(key, error)
            raise error
        self.damage.resolved(key)
        return data


def _no_version(name: str) -> NotFoundError:
    return NotFoundError(f"there is no version {name}, or it is no longer kept; `labelloop models` lists them")


def _version(draft: Draft, number: int, key: str, sha: str) -> Version:
    probabilities = draft.head.probabilities(draft.check_features)
    return Version(
        number=number, kind=draft.kind, backbone=draft.backbone, labels=draft.head.labels, head_key=key,
        head_sha256=sha, snapshot=draft.snapshot, config=draft.config, code=draft.code, parent=draft.parent,
        reference=draft.reference, recipe=draft.recipe, evaluation=draft.evaluation,
        verdict=draft.verdict, check_features=_rows(draft.check_features),
        check_probabilities=_rows(probabilities), created_at=now(),
    )  # fmt: skip


def entry_from(raw: bytes, key: str) -> LogEntry:
    """A log entry; CorruptObjectError, FormatError."""
    entry = load(Kind.DEPLOYMENT, raw, LogEntry, key)
    with reading(key):
        _must(entry.number == _number_in(key), "it has another entry's number")
        _must(not entry.version or _is_name(entry.version), f"{entry.version!r} is no version")
        parse(entry.at)
    return entry


def version_from(raw: bytes, key: str) -> Version:
    """A version's record; CorruptObjectError, FormatError."""
    with reading(key):
        version = typed(Version, {"parent": None, "reference": None, **read(Kind.VERSION, raw, key)})
        _must(version.number == _number_in(key), "it has another version's number")
        parse(version.created_at)
    return version


def backbone_from(raw: bytes, key: str) -> BackboneRecord:
    """A backbone's record; CorruptObjectError, FormatError."""
    record = load(Kind.BACKBONE, raw, BackboneRecord, key)
    with reading(key):
        _must(key == f"backbones/{record.id}/backbone.json", f"it is the record of {record.id}")
        if record.created_at:
            parse(record.created_at)
        outputs = np.asarray(record.checks.get("features", ()), dtype=float)
        _must(bool(np.isfinite(outputs).all()), "its recorded outputs are no numbers")
    return record


def initial_from(raw: bytes, key: str = "") -> str:
    """The id of the backbone that the project began with; CorruptObjectError."""
    with reading(key or INITIAL):
        name = as_object(json.loads(raw))["id"]
        _must(isinstance(name, str), "its id is no text")
        return str(name)


def _numbered(infos: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Without what somebody else has put there."""
    return (info for info in infos if info.key.rsplit("/", 1)[-1].removesuffix(".json").isdecimal())


def _number_in(key: str) -> int:
    return int(key.rsplit("/", 1)[-1].removesuffix(".json"))


def _must(fits: bool, what: str) -> None:
    if not fits:
        raise ValueError(what)


def _is_name(version: str) -> bool:
    return version.startswith("v") and version[1:].isdecimal()


def _rows(array: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in array.astype(float).tolist())


def _weights_key(backbone: str) -> str:
    return f"backbones/{backbone}/weights.safetensors"


def _version_key(number: int) -> str:
    return f"models/versions/{number:08d}.json"


def _deployment_key(number: int) -> str:
    return f"deployments/{number:08d}.json"
