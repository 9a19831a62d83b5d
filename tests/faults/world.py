"""The real stack with every labelloop process behind a proxy, and the hands that break it."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from cli.connect import deployment_of
from embedded.guard import descendants
from embedded.loop import loop_services
from embedded.ports import pick_port
from embedded.process import ServiceSpec, ServiceState
from embedded.stack import Stack
from embedded.state import StackState
from labelloop.config.settings import child_environment
from operations.deployment import Deployment
from tests.faults.proxy import Proxy, Trouble
from tests.faults.schedule import OURS, Fault

CLOCK = Path(__file__).parent / "clock"
SKEW_S = 60.0
NO_LIMIT = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@dataclass
class World:
    """A running stack. `direct` is what people use, `proxied` what the loop's own processes see."""

    home: Path
    stack: Stack
    proxy: Proxy
    direct: Deployment
    proxied: Deployment

    def pid(self, service: str) -> int | None:
        """The service's own process; None while it is down."""
        status = next(s for s in self.stack.statuses() if s.name == service)
        return status.pid if status.state in {ServiceState.STARTING, ServiceState.READY} else None

    def ready(self) -> bool:
        """Every service runs and has said so."""
        return all(s.state is ServiceState.READY for s in self.stack.statuses())

    def processes(self) -> int:
        """How many processes live below this one."""
        return len(descendants(os.getpid()))

    def memory_mb(self) -> dict[str, float]:
        """Resident memory per service, children included."""
        return {s.name: _resident_mb(s.pid) for s in self.stack.statuses() if s.pid}

    def break_(self, fault: Fault) -> None:
        """Let it happen, wait as long as it lasts, mend it."""
        begin, end = _HANDS[fault.kind]
        begin(self, fault)
        try:
            time.sleep(fault.lasts_s)
        finally:
            end(self, fault)

    def heal(self) -> None:
        """Nothing is broken any more; what is down comes back by itself."""
        self.proxy.heal()
        for status in self.stack.statuses():
            if status.pid:
                _signal_all(status.pid, signal.SIGCONT)
                _limit_files(status.pid, unlimited=True)
        for service in OURS:
            (self.home / "clocks" / service).write_text("0")

    def kill(self, fault: Fault) -> None:
        if pid := self.pid(fault.where):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze(self, fault: Fault) -> None:
        if pid := self.pid(fault.where):
            _signal_all(pid, signal.SIGSTOP)

    def thaw(self, fault: Fault) -> None:
        if pid := self.pid(fault.where):
            _signal_all(pid, signal.SIGCONT)

    def fill_disk(self, fault: Fault) -> None:
        if pid := self.pid(fault.where):
            _limit_files(pid, unlimited=False)

    def free_disk(self, fault: Fault) -> None:
        if pid := self.pid(fault.where):
            _limit_files(pid, unlimited=True)

    def skew_clock(self, fault: Fault) -> None:
        ahead = sum(map(ord, fault.where)) + fault.at
        (self.home / "clocks" / fault.where).write_text(str(SKEW_S if ahead % 2 else -SKEW_S))

    def flush(self, _: Fault) -> None:
        with suppress(Exception):  # it may be down at this moment
            self.direct.queue.redis.flushall()

    def trouble(self, fault: Fault) -> None:
        self.proxy.links[fault.where].set(Trouble(fault.kind))

    def untrouble(self, fault: Fault) -> None:
        self.proxy.links[fault.where].set(Trouble.NONE)

    def nothing(self, _: Fault) -> None:
        """It mends itself, or lasts until the end of the schedule."""


Hand = Callable[[World, Fault], None]
_HANDS: dict[str, tuple[Hand, Hand]] = {
    "kill": (World.kill, World.nothing),
    "freeze": (World.freeze, World.thaw),
    "disk": (World.fill_disk, World.free_disk),
    "clock": (World.skew_clock, World.nothing),
    "flush": (World.flush, World.nothing),
    **{t.value: (World.trouble, World.untrouble) for t in Trouble if t is not Trouble.NONE},
}


@contextmanager
def running_world(home: Path, report: Callable[[str], None] = lambda _: None) -> Iterator[World]:
    """Start everything, wait until it is ready, stop everything."""
    (home / "clocks").mkdir(parents=True, exist_ok=True)
    ends: list[tuple[StackState, Proxy]] = []

    def ours(state: StackState) -> Sequence[ServiceSpec]:
        ports = state.ports
        real = {"s3": ports.s3, "valkey": ports.valkey, "label_studio": ports.label_studio}
        routes: dict[str, tuple[int, int]] = {}
        for name, port in real.items():
            routes[name] = (port, pick_port([*real.values(), *(r[1] for r in routes.values())]))
        proxied = replace(state, ports=replace(ports, **{n: r[1] for n, r in routes.items()}))
        proxy = Proxy(routes)
        proxy.start()
        ends.append((proxied, proxy))
        environ = {**child_environment(), "PYTHONPATH": str(CLOCK)}
        specs = loop_services(proxied, environ, home / "logs")
        return [replace(s, env={**s.env, "LABELLOOP_FAULTS_CLOCK": str(home / "clocks" / s.name)}) for s in specs]

    with Stack(home, base_env=child_environment(), extra=ours, report=report) as stack:
        state = stack.start()
        proxied, proxy = ends[0]
        stack.wait_ready()
        world = World(home, stack, proxy, deployment_of(state), deployment_of(proxied))
        try:
            yield world
        finally:
            world.heal()
            world.direct.close()
            world.proxied.close()
            stack.stop()
            proxy.stop()


def _signal_all(pid: int, number: signal.Signals) -> None:
    """To the service and whatever it has forked: it leads a process group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _limit_files(pid: int, *, unlimited: bool) -> None:
    """No file may grow any more: what a full disk does to a process."""
    for each in (pid, *descendants(pid)):
        with suppress(ProcessLookupError, PermissionError):
            resource.prlimit(each, resource.RLIMIT_FSIZE, NO_LIMIT if unlimited else (0, resource.RLIM_INFINITY))


def _resident_mb(pid: int) -> float:
    total = 0
    for each in (pid, *descendants(pid)):
        with suppress(OSError, IndexError, ValueError):
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return round(total * resource.getpagesize() / 1e6, 1)
