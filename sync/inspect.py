"""A project's objects in, those that cannot be read out: a few at a time, so that nobody has to meet them first.

What has a copy, or is known in this process, is written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice

import structlog

from labelloop.errors import CorruptObjectError, FormatError, LabelloopError, NotFoundError, SettingsError
from labelloop.objects.copies import heal
from labelloop.objects.damage import Damage
from labelloop.objects.storage import ObjectInfo, ObjectStore
from labelloop.upkeep.inspection import fault_of, is_known
from sync.weights import WeightsPublisher, is_weights

AT_ONCE = 100  # objects per turn
Mender = Callable[[Sequence[str]], object]  # told which keys are damaged

log = structlog.get_logger()


class Inspection:
    """Goes round and round; what was looked at is read again only where it has changed."""

    def __init__(
        self, store: ObjectStore, damage: Damage, menders: Mapping[str, Mender], weights: WeightsPublisher | None = None
    ) -> None:  # fmt: skip
        self._store, self._damage, self._menders = store, damage, menders  # prefix -> what writes it again
        self._weights = weights
        self._etags: dict[str, str] = {}
        self._after = ""

    def turn(self) -> None:
        """The next few; then whatever can be mended of all that is damaged."""
        listed = list(islice(self._store.list("", start_after=self._after), AT_ONCE))
        self._after = listed[-1].key if len(listed) == AT_ONCE else ""
        for info in listed:
            fresh = self._etags.get(info.key) != info.etag and not self._damage.is_noted(info)
            if fresh and (is_known(info.key) or is_weights(info)):
                self._look(info)
        self._mend()

    def _look(self, info: ObjectInfo) -> None:
        try:
            why = self._fault(info)
        except CorruptObjectError as error:  # too large to be what it says
            why = error.reason
        except (NotFoundError, FormatError, SettingsError):  # gone, or of a newer release: its reader says so
            return
        if why:
            self._damage.note(info.key, CorruptObjectError(info.key, why), info.etag)
            self._etags.pop(info.key, None)
        else:
            self._damage.resolved(info.key)
            self._etags[info.key] = info.etag

    def _fault(self, info: ObjectInfo) -> str | None:
        if is_weights(info):
            return self._weights.fault(info.key) if self._weights else None
        return fault_of(info.key, self._store.get(info.key))

    def _mend(self) -> None:
        for key in self._damage.keys(""):
            if not self._store.exists(key):
                self._damage.resolved(key)
            elif heal(self._store, key, lambda raw, k=key: fault_of(k, raw) is None):  # type: ignore[misc]
                log.info("written again from its copy", action="heal", key=key)
                self._damage.resolved(key)
        for prefix, mend in self._menders.items():
            if self._damage.keys(prefix):
                with suppress(LabelloopError):  # it stays damaged, and is told
                    mend(self._damage.keys(prefix))
