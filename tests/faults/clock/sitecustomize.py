"""Loaded by every labelloop process of the fault harness: its wall clock is off by what a small file says."""

import datetime as _datetime
import os
import time as _time

_FILE = os.environ.get("LABELLOOP_FAULTS_CLOCK")

if _FILE:
    _real_time, _monotonic = _time.time, _time.monotonic
    _real = _datetime.datetime
    _known = [0.0, -1.0]  # seconds off, when that was read

    def _offset() -> float:
        moment = _monotonic()
        if moment - _known[1] > 0.2:
            _known[1] = moment
            try:
                with open(_FILE) as file:  # noqa: PTH123 -- pathlib would import half the library into every process
                    _known[0] = float(file.read() or 0)
            except (OSError, ValueError):
                pass
        return _known[0]

    class _Meta(type(_real)):
        def __instancecheck__(cls, value: object) -> bool:
            return isinstance(value, _real)

    class _Skewed(_real, metaclass=_Meta):
        @classmethod
        def now(cls, tz=None):
            return _real.fromtimestamp(_real_time() + _offset(), tz)

        @classmethod
        def utcnow(cls):
            return _real.fromtimestamp(_real_time() + _offset(), _datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls):
            return cls.now()

    _time.time = lambda: _real_time() + _offset()
    _datetime.datetime = _Skewed
