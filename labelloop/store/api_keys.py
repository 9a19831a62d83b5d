"""API keys in the bucket, one object each: Redis may be away, and every process reads the same.

They lie beside the projects and are in no backup: an old backup must not bring a revoked key back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta

from labelloop.clock import LABEL_STUDIO_FORMAT, now, parse
from labelloop.errors import AlreadyExistsError, FormatError, LabelloopError, NotFoundError
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import Kind, load, reading, write
from labelloop.objects.storage import ObjectInfo, ObjectStore
from labelloop.records.api_keys import ApiKey, Scope
from labelloop.rules.api_keys import hash_of, new_id, new_secret, whole_key

PREFIX = "keys/"
MOST = 1000  # each process holds them all
NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,80}")
PER_MINUTE = 600
TRIES = 5


@dataclass(frozen=True, slots=True)
class NewKey:
    """``whole`` is shown once: only its hash is kept."""

    record: ApiKey
    whole: str


class ApiKeyStore:
    """All keys of a deployment. Reads again only what has changed."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._kept: dict[str, tuple[str, ApiKey]] = {}  # object -> (etag, key)
        self.damage = Damage()

    def all(self) -> list[ApiKey]:
        """By id. One that cannot be read is left out, and so lets nobody in: see ``damage``. StorageError."""
        infos = {info.key: info for info in self._store.list(PREFIX)}
        self._kept = {name: kept for name, kept in self._kept.items() if name in infos}
        changed = [i for i in infos.values() if i.key not in self._kept or self._kept[i.key][0] != i.etag]
        for info in changed:
            self._kept.pop(info.key, None)
        for info in changed[: MOST - len(self._kept)]:
            self._look_at(info)
        return [self._kept[name][1] for name in sorted(self._kept)]

    def get(self, key_id: str) -> ApiKey:
        """One key; NotFoundError, CorruptObjectError, FormatError."""
        try:
            return api_key_from(self._store.get(_object(key_id)), _object(key_id))
        except NotFoundError as error:
            raise NotFoundError(f"there is no API key {key_id!r}; `labelloop keys list` shows them") from error

    def add(
        self, name: str, scopes: Collection[Scope], *, by: str, project: str = "", days: int = 0,
        per_minute: int = PER_MINUTE,
    ) -> NewKey:  # fmt: skip
        """A new key. ``days`` until it expires; 0: never."""
        if not NAME.fullmatch(name):
            raise LabelloopError("the name of a key has 1 to 80 characters and no line break")
        if not scopes:
            raise LabelloopError(f"a key without a scope may nothing: give one of {', '.join(Scope)}")
        if len(self.all()) >= MOST:
            raise LabelloopError(f"there are {MOST} API keys already: `labelloop keys remove` deletes revoked ones")
        secret, moment = new_secret(), datetime.now(UTC)
        record = ApiKey(
            new_id(), name, hash_of(secret), tuple(s for s in Scope if s in scopes), by, _text(moment), project,
            _text(moment + timedelta(days=days)) if days else "", per_minute=per_minute,
        )  # fmt: skip
        self._store.put(_object(record.id), write(Kind.API_KEY, asdict(record)), if_absent=True)
        return NewKey(record, whole_key(record.id, secret))

    def rotate(self, key_id: str, *, keep_hours: float) -> NewKey:
        """Another secret for the same key. The one before counts for ``keep_hours`` more."""
        secret = new_secret()

        def rotated(key: ApiKey) -> ApiKey:
            if key.revoked:
                raise LabelloopError(f"key {key_id} is revoked: `labelloop keys add` makes another")
            until = _text(datetime.now(UTC) + timedelta(hours=keep_hours)) if keep_hours else ""
            return replace(key, sha256=hash_of(secret), former=key.sha256 if until else "", former_until=until)

        return NewKey(self._change(key_id, rotated), whole_key(key_id, secret))

    def revoke(self, key_id: str) -> ApiKey:
        """It counts no more, for good. One that is revoked already stays as it is."""
        return self._change(key_id, lambda key: key if key.revoked else replace(key, revoked=now()))

    def remove(self, key_id: str) -> None:
        """Forget a key, also one that cannot be read: it counts no more, and nothing tells of it."""
        if not self._store.exists(_object(key_id)):
            self.get(key_id)
        self._store.delete(_object(key_id))

    def _change(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        """By compare and swap: a revocation is never lost to somebody who rotates at the same moment."""
        name = _object(key_id)
        self.get(key_id)
        for _ in range(TRIES):
            raw, etag = self._store.get_with_etag(name)
            changed = change(api_key_from(raw, name))
            try:
                self._store.swap(name, write(Kind.API_KEY, asdict(changed)), etag=etag)
            except AlreadyExistsError:
                continue
            return changed
        raise LabelloopError(f"key {key_id} is being changed by others; try again")

    def _look_at(self, info: ObjectInfo) -> None:
        if self.damage.is_noted(info):
            return
        try:
            self._kept[info.key] = (info.etag, api_key_from(self._store.get(info.key), info.key))
            self.damage.resolved(info.key)
        except NotFoundError:  # removed since
            return
        except (*UNREADABLE, FormatError) as error:
            self.damage.note(info.key, error, info.etag)


def api_key_from(raw: bytes, name: str) -> ApiKey:
    """A key; CorruptObjectError, FormatError."""
    key = load(Kind.API_KEY, raw, ApiKey, name)
    with reading(name):
        if name != _object(key.id):
            raise ValueError(f"it is the key {key.id}")
        if not re.fullmatch(r"[0-9a-f]{64}", key.sha256) or key.per_minute < 1:
            raise ValueError("no key can be like that")
        for moment in (key.made, key.expires, key.revoked, key.former_until):
            if moment and parse(moment).tzinfo is None:
                raise ValueError(f"{moment!r} names no time zone")
    return key


def _object(key_id: str) -> str:
    return f"{PREFIX}{key_id}.json"


def _text(moment: datetime) -> str:
    return moment.strftime(LABEL_STUDIO_FORMAT)
