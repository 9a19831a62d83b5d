"""The few small objects that nothing else can derive, written twice: one that cannot be read is read from its copy.

docs/adr/0025-damage-stays-small.md says which these are, and why not all.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import TypeVar

from labelloop.errors import NotFoundError
from labelloop.limits import INFLATED, OF_A_PROJECT, inflated, most_of
from labelloop.objects.damage import UNREADABLE, Damage
from labelloop.objects.formats import reading
from labelloop.objects.storage import ObjectStore

T = TypeVar("T")
PREFIX = "copies/"
LEVEL = 3


def put_twice(store: ObjectStore, key: str, data: bytes) -> None:
    """The copy first: where the object is, its copy is."""
    put_copy(store, key, data)
    store.put(key, data)


def put_copy(store: ObjectStore, key: str, data: bytes) -> None:
    """The copy alone."""
    store.put(copy_key(key), gzip.compress(data, LEVEL, mtime=0))


def get_twice(
    store: ObjectStore, key: str, parse: Callable[[bytes], T], damage: Damage, *, raw: bytes | None = None
) -> T:
    """What ``parse`` makes of the object (``raw``, where it was read already), or of its copy.

    The object's own error where neither can be read; NotFoundError where the object is not there.
    """
    try:
        value = parse(store.get(key) if raw is None else raw)
    except UNREADABLE as error:
        damage.note(key, error)
        try:
            return parse(get_copy(store, key))
        except (*UNREADABLE, NotFoundError):
            raise error from None
    damage.resolved(key)
    return value


def heal(store: ObjectStore, key: str, fits: Callable[[bytes], bool]) -> bool:
    """Write a damaged object again from its copy, or a damaged copy from its object; False where neither can be."""
    original = key.removeprefix(PREFIX).removesuffix(".gz")
    try:
        raw = get_copy(store, key) if original == key else store.get(original)
        good = raw if original == key else gzip.compress(raw, LEVEL, mtime=0)
        if fits(good):
            store.put(key, good)
            return True
    except (*UNREADABLE, NotFoundError):
        pass
    return False


def get_copy(store: ObjectStore, key: str) -> bytes:
    """NotFoundError where an older release wrote the object; CorruptObjectError."""
    raw = store.get(copy_key(key))
    with reading(copy_key(key)):
        return inflated(raw, most_of(OF_A_PROJECT + copy_key(key)) or INFLATED)


def copy_key(key: str) -> str:
    """Beside the objects themselves, so that no listing of a kind meets it."""
    return f"{PREFIX}{key}.gz"
