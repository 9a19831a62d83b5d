"""What versions said of the random labels, kept beside them: the worker judges, readers forecast from it."""

from __future__ import annotations

from dataclasses import asdict

from labelloop.objects.formats import Kind, load, write
from labelloop.objects.storage import ObjectStore
from labelloop.records.curve import KeptCurve

KEY = "curve.json"


def keep_curve(store: ObjectStore, curve: KeptCurve) -> None:
    """In place of the one before."""
    store.put(KEY, write(Kind.CURVE, asdict(curve)))


def kept_curve(store: ObjectStore) -> KeptCurve:
    """NotFoundError before the first version was judged; CorruptObjectError where it cannot be read."""
    return load(Kind.CURVE, store.get(KEY), KeptCurve, KEY)
