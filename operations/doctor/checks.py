"""Checks in, findings out: all at once, each bounded in time: an address that never answers holds up nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from labelloop.errors import LabelloopError
from operations.doctor.finding import Finding, warn, wrong

LIMIT_S = 20.0
FIRST_S = 10.0  # of what everything else needs
OnProgress = Callable[[int, int], None]  # (done, of)


@dataclass(frozen=True, slots=True)
class DoctorCheck:
    """One thing to look at. ``needs``: names of first checks without whose success it shows nothing."""

    area: str
    what: str
    look: Callable[[], Finding | Sequence[Finding]]
    needs: tuple[str, ...] = ()
    limit_s: float = LIMIT_S


@dataclass
class _Running:
    check: DoctorCheck
    began: float = field(default_factory=time.monotonic)
    done: threading.Event = field(default_factory=threading.Event)
    findings: tuple[Finding, ...] = ()

    def start(self) -> _Running:
        # a daemon: what hangs is left behind, and ends with the command
        threading.Thread(target=self._run, name=f"check {self.check.what}", daemon=True).start()
        return self

    def result(self) -> tuple[Finding, ...]:
        """Wait until it is done, or its time is up."""
        left = self.began + self.check.limit_s - time.monotonic()
        if not self.done.wait(max(left, 0)):
            return (wrong(self.check.what, f"no answer within "
                                           f"{self.check.limit_s:.0f} s", "check its address and the "
                                               "firewall"),)  # fmt: skip
        return self.findings

    def _run(self) -> None:
        try:
            result = self.check.look()
            self.findings = (result,) if isinstance(result, Finding) else tuple(result)
        except LabelloopError as error:
            self.findings = (wrong(self.check.what, str(error), "fix what the message names, then check again"),)
        except Exception as error:  # a check's edge: one surprise must not hide the others
            self.findings = (wrong(self.check.what, f"cannot be checked: {type(error).__name__}: {error}",
                                   "the check itself is broken: please report it"),)  # fmt: skip
        finally:
            self.done.set()


def look_at(
    checks: Sequence[DoctorCheck], progress: OnProgress = lambda _done, _of: None
) -> Mapping[DoctorCheck, Sequence[Finding]]:
    """Every check's findings, in the order given."""
    running = [_Running(check).start() for check in checks]
    findings: dict[DoctorCheck, Sequence[Finding]] = {}
    for done, item in enumerate(running):
        progress(done, len(running))
        findings[item.check] = item.result()
    progress(len(running), len(running))
    return findings


def runnable(checks: Iterable[DoctorCheck], failed: Iterable[str]) -> tuple[list[DoctorCheck], list[Finding]]:
    """(what can be looked at, a line about what cannot because something it needs has failed)."""
    broken = set(failed)
    candidates = list(checks)
    kept = [check for check in candidates if not broken.intersection(check.needs)]
    left_out = [check for check in candidates if broken.intersection(check.needs)]
    if not left_out:
        return kept, []
    names = ", ".join(sorted(broken & {need for check in left_out for need in check.needs}))
    return kept, [
        warn("left out", f"{len(left_out)} checks depend on what failed: {names}", "fix that, then check again")
    ]
