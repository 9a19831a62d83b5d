"""Model versions, the deployment log, rollback: the only way from a worker to the backend."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from labelloop.classifier import Classifier, load_classifier
from labelloop.clock import now
from labelloop.errors import AlreadyExistsError, ConflictError, CorruptArtefactError, NotFoundError
from labelloop.formats import Kind, load, read, write
from labelloop.pauses import PauseStore
from labelloop.records import Evaluation, Verdict, canonical, digest, evaluation_from, fields_of, to_dict, verdict_from
from labelloop.runs import Claim
from labelloop.storage import ObjectStore

REJECT = "reject"
Lease = Callable[[str], AbstractContextManager[int]]  # name -> fencing number, which only grows


@dataclass(frozen=True, slots=True)
class BackboneRecord:
    """A network without its classifier, and all that must be the same in serving and training."""

    id: str
    name: str
    options: Mapping[str, Any]  # how to build it
    preprocessing: Mapping[str, Any]  # size, resize, mean, std, ...
    dimension: int
    weights_sha256: str
    provenance: str  # where the weights came from, in words
    snapshot: str | None = None  # the labels it was fine-tuned on; None: it never saw any
    checks: Mapping[str, Any] = field(default_factory=dict)  # outputs for a known input
    created_at: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """(backbone, head, calibration, label order, preprocessing), with where it came from."""

    number: int
    kind: str  # refresh | retrain
    backbone: str
    labels: tuple[str, ...]
    head_key: str
    head_sha256: str
    snapshot: str
    config: str  # ProjectConfig.hash
    code: str  # code_version() of who made it
    parent: str | None
    reference: str | None  # version against which summed-up losses are bounded
    recipe: Mapping[str, Any]  # strength, folds, seed, ...
    evaluation: Evaluation
    verdict: Verdict
    check_features: tuple[tuple[float, ...], ...]  # a few feature rows ...
    check_probabilities: tuple[tuple[float, ...], ...]  # ... and what the head must make of them
    created_at: str

    @property
    def name(self) -> str:
        return f"v{self.number}"


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


@dataclass(frozen=True, slots=True)
class Deployment:
    """One numbered entry of the append-only log; the last one names the live version."""

    number: int
    version: str  # live from here on
    action: str  # deploy | promote | rollback | reject
    previous: str | None
    by: str
    why: str
    at: str
    fencing: int
    rejected: str | None = None  # a version that a person has refused; the live one stays
    run: str = ""  # the run that delivered it ...
    wish: str = ""  # ... and what that run was to answer


class Registry:
    """One project's models. Deploys are serialised by a lease; the log in object storage is the truth."""

    def __init__(self, store: ObjectStore, lease: Lease) -> None:
        self._store = store
        self.lease = lease
        self.pauses = PauseStore(store)
        self._versions: dict[str, Version] = {}
        self._log: dict[int, Deployment] = {}
        self._backbones: dict[str, BackboneRecord] = {}
        self._initial: str | None = None

    # --- backbones

    def add_backbone(self, record: BackboneRecord, weights: bytes) -> None:
        """Weights first, record last: a record is only there when its weights are."""
        self._store.put(f"backbones/{record.id}/weights.safetensors", weights)
        self._store.put(f"backbones/{record.id}/backbone.json", write(Kind.BACKBONE, to_dict(record)))

    def backbone(self, name: str) -> BackboneRecord:
        """One backbone's record; NotFoundError where there is none."""
        if name not in self._backbones:
            self._backbones[name] = load(
                Kind.BACKBONE, self._store.get(f"backbones/{name}/backbone.json"), BackboneRecord
            )
        return self._backbones[name]

    def backbone_weights(self, record: BackboneRecord) -> bytes:
        """The weights; CorruptArtefactError where their hash is not the recorded one."""
        return self._verified(f"backbones/{record.id}/weights.safetensors", record.weights_sha256)

    def initial_backbone(self) -> BackboneRecord | None:
        """The backbone the project began with, or None before the first image was seen."""
        try:
            self._initial = self._initial or str(json.loads(self._store.get("backbones/initial.json"))["id"])
            return self.backbone(self._initial)
        except NotFoundError:
            return None

    def set_initial_backbone(self, record: BackboneRecord) -> BackboneRecord:
        """Decide it once; whoever comes second gets the first one's."""
        try:
            self._store.put("backbones/initial.json", canonical({"id": record.id}), if_absent=True)
            return record
        except AlreadyExistsError:
            found = self.initial_backbone()
            return found or record

    def current_backbone(self) -> BackboneRecord | None:
        """The live version's backbone, before the first version the initial one."""
        live = self.live()
        return self.backbone(self.version(live.version).backbone) if live else self.initial_backbone()

    # --- versions

    def add(self, draft: Draft) -> Version:
        """Give a draft its number; conditional write, so that two never share one."""
        head = draft.head.dump()
        sha = digest(head)
        key = f"models/heads/{sha[:32]}.safetensors"
        self._store.put(key, head)
        number = 1 + max((v.number for v in self.versions()), default=0)
        version = _version(draft, number, key, sha)
        while not self._claim(_version_key(version.number), write(Kind.VERSION, to_dict(version))):
            version = replace(version, number=version.number + 1)
        return version

    def versions(self) -> list[Version]:
        """All versions that are kept, oldest first."""
        found = []
        for info in self._store.list("models/versions/"):
            with suppress(NotFoundError):  # tidied away since it was listed
                found.append(self.version(f"v{int(info.key.split('/')[-1].removesuffix('.json'))}"))
        return sorted(found, key=lambda v: v.number)

    def version(self, name: str) -> Version:
        """One version by name (`v7`); NotFoundError where there is none, or no longer."""
        if name not in self._versions:
            if not re.fullmatch(r"v[0-9]{1,9}", name):
                raise NotFoundError(f"{name!r} is no version; `labelloop models` lists them")
            try:
                self._versions[name] = _read_version(self._store.get(_version_key(int(name[1:]))))
            except NotFoundError as error:
                raise _gone(name) from error
        return self._versions[name]

    def forget(self, choose: Callable[[Sequence[Deployment]], Sequence[str]]) -> list[str]:
        """Remove the version records that ``choose`` names, by the log as it is under the deploy lease.

        Whoever deploys one of them at the same time comes first, and then it is not chosen, or is refused.
        """
        with self.lease("deploy"):
            names = list(choose(self.deployments()))
            for name in names:
                self._store.delete(_version_key(int(name[1:])))
                self._versions.pop(name, None)
        return names

    def head(self, version: Version) -> Classifier:
        """The head, its hash verified."""
        return load_classifier(self._verified(version.head_key, version.head_sha256), version.labels)

    # --- deployments

    def deployments(self) -> list[Deployment]:
        """What went live, oldest first."""
        return [entry for entry in self.decisions() if entry.action != REJECT]

    def rejected(self) -> dict[str, Deployment]:
        """Versions that people have refused and not promoted since, with who, when and why."""
        found: dict[str, Deployment] = {}
        for entry in self.decisions():
            if entry.rejected:
                found[entry.rejected] = entry
            else:
                found.pop(entry.version, None)
        return found

    def decisions(self) -> list[Deployment]:
        """The whole log, oldest first; entries already read are not fetched again."""
        last = max(self._log, default=0)
        for info in self._store.list("deployments/", start_after=_deployment_key(last)):
            entry = load(Kind.DEPLOYMENT, self._store.get(info.key), Deployment)
            self._log[entry.number] = entry
        return [self._log[n] for n in sorted(self._log)]

    def live(self) -> Deployment | None:
        """The newest log entry, or None before the first deploy."""
        log = self.deployments()
        return log[-1] if log else None

    def deploy(self, version: str, *, expected: str | None, action: str, by: str, why: str) -> Deployment:
        """Compare-and-swap on the live version; ConflictError where it is no longer ``expected``.

        PausedError where learning is paused and the action is `deploy`, which no person has asked for.
        """
        with self.lease("deploy") as fencing:
            log = self._log_with(expected, action)
            if not self._store.exists(_version_key(int(version[1:]))):
                raise _gone(version)
            return self._append(log, Deployment(0, version, action, expected, by, why, now(), fencing))

    def deploy_new(self, draft: Draft, *, by: str, why: str, claim: Claim | None = None) -> Version:
        """`add` and `deploy` in one, in place of ``draft.parent``.

        ConflictError, PausedError, SupersededError (by ``claim``): nothing was added.
        """
        with self.lease("deploy") as fencing:
            log = self._log_with(draft.parent, "deploy")
            if claim:  # under the lease: nobody else can answer the wish in between
                claim.check()
            version = self.add(draft)
            entry = Deployment(0, version.name, "deploy", draft.parent, by, why, now(), fencing)
            self._append(log, replace(entry, run=claim.run.id, wish=claim.run.wish) if claim else entry)
            return version

    def reject(self, version: str, *, by: str, why: str) -> Deployment:
        """Note that a person refuses a version; ConflictError where it is live: that needs a rollback."""
        with self.lease("deploy") as fencing:
            log = self.decisions()
            current = _live_after(log) or ""
            if current == version:
                raise ConflictError(f"{version} is live: `labelloop rollback` goes back to the version before it")
            self.version(version)  # NotFoundError says how to find one
            entry = Deployment(0, current, REJECT, current or None, by, why, now(), fencing, rejected=version)
            return self._append(log, entry)

    def _log_with(self, expected: str | None, action: str) -> list[Deployment]:
        """The log in which ``expected`` is live, if learning goes on; call it under the lease."""
        if action == "deploy":  # under the lease: whoever pauses and then takes it knows that none slips through
            self.pauses.check()
        log = self.decisions()
        current = _live_after(log)
        if current != expected:
            raise ConflictError(f"{current} is live, not {expected}; decide again against {current}")
        return log

    def _append(self, log: Sequence[Deployment], entry: Deployment) -> Deployment:
        """Next to the ``log`` that was looked at: what was written since, past a lease that ran out, is a conflict."""
        entry = replace(entry, number=log[-1].number + 1 if log else 1)
        if not self._claim(_deployment_key(entry.number), write(Kind.DEPLOYMENT, asdict(entry))):
            raise ConflictError(f"deployment {entry.number} was written by somebody else; decide again")
        return entry

    def rollback_target(self) -> str | None:
        """The version that was live before the live one, skipping versions that were rolled back."""
        stack = way_back(self.deployments())
        return stack[-2] if len(stack) > 1 else None

    def _claim(self, key: str, data: bytes) -> bool:
        """Write where nothing is; False where somebody else did. Ours counts: its first answer may have been lost."""
        try:
            self._store.put(key, data, if_absent=True)
            return True
        except AlreadyExistsError:
            return self._store.get(key) == data

    def _verified(self, key: str, sha256: str) -> bytes:
        data = self._store.get(key)
        if digest(data) != sha256:
            raise CorruptArtefactError(f"{key} does not have the hash that was recorded when it was made")
        return data


def _live_after(log: Sequence[Deployment]) -> str | None:
    """The version that a log ends with, None before the first deploy."""
    return next((entry.version for entry in reversed(log) if entry.action != REJECT), None)


def way_back(log: Iterable[Deployment]) -> list[str]:
    """The versions that rollbacks go through, the live one last."""
    stack: list[str] = []
    for entry in log:
        if entry.action == "rollback" and entry.version in stack:
            last = len(stack) - 1 - stack[::-1].index(entry.version)
            del stack[last + 1 :]
        else:
            stack.append(entry.version)
    return stack


def _gone(name: str) -> NotFoundError:
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


def _read_version(data: bytes) -> Version:
    values = {"parent": None, "reference": None, **fields_of(Version, read(Kind.VERSION, data))}
    values["labels"] = tuple(values["labels"])
    values["evaluation"] = evaluation_from(values["evaluation"])
    values["verdict"] = verdict_from(values["verdict"])
    for name in ("check_features", "check_probabilities"):
        values[name] = tuple(tuple(row) for row in values[name])
    return Version(**values)


def _rows(array: np.ndarray[Any, np.dtype[np.float32]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in array.astype(float).tolist())


def _version_key(number: int) -> str:
    return f"models/versions/{number:08d}.json"


def _deployment_key(number: int) -> str:
    return f"deployments/{number:08d}.json"
