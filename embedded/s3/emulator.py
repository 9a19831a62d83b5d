"""ministack's S3 without the rest of it: the cloud around it cannot even be imported in this process.

The version is pinned by hash (`s3.lock`), so its inner functions may be called: its own entrance would first ask sixty
other services whether a request is theirs.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from embedded.s3.app import S3Response
from embedded.s3.calls import Call

S3 = "ministack.services.s3"
# of what a state directory may hold from before the guard: no notification, no policy, no access point comes back
VERIFIED = {"authorization": "by the guard"}  # or the emulator takes the caller for nobody
KEPT = ("buckets_meta", "bucket_versioning")

log = logging.getLogger("s3")


class NothingElse:
    """An importer that knows none of the other services."""

    def find_spec(self, name: str, _path: Sequence[str] | None = None, _target: Any = None) -> ModuleSpec | None:
        """None lets others look; ImportError ends the search."""
        if name.startswith("ministack.services.") and name != S3:
            raise ImportError(f"{name} is not part of this server", name=name)
        return None


def open_emulator() -> Callable[[Call, bytes], S3Response]:
    """Loads what is stored (the settings are in the environment); a function that performs one call."""
    emulator = _load()
    persistence = importlib.import_module("ministack.core.persistence")
    emulator.load_persisted_state(_kept(persistence.load_state("s3")))

    def perform(call: Call, body: bytes) -> S3Response:
        query = {name: [value] for name, value in call.query.items()}
        status, headers, data = emulator._dispatch(
            call.method, call.bucket, call.key, {**call.headers, **VERIFIED}, body, query
        )
        if call.changes_buckets:  # at once: a kill must not forget them
            persistence.save_state("s3", _kept(emulator.get_state()))
        return S3Response(int(status), {str(n): str(v) for n, v in headers.items()}, _bytes(data))

    return perform


def _load() -> ModuleType:
    entrance = ModuleType("ministack.app")
    entrance.AUTH = False  # type: ignore[attr-defined] # all that S3 asks of it; the guard has checked
    sys.modules["ministack.app"] = entrance
    sys.meta_path.insert(0, NothingElse())
    return importlib.import_module(S3)


def _kept(state: dict[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (state or {}).items() if name in KEPT}


def _bytes(data: bytes | str) -> bytes:
    return data.encode() if isinstance(data, str) else data
