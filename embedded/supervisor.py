"""Starts services in the order of their dependencies, restarts those that die, and stops all in reverse order."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

from embedded.process import Child, GiveUp, ServiceSpec, ServiceState, ServiceStatus, after_exit, last_lines, sweep
from labelloop.errors import StackError

TICK_S = 0.05
PROBE_EVERY_S = 0.1
STABLE_S = 30.0


class Supervisor:
    """Keeps services running from a thread of its own; every public method may be called from any thread.

    `mark` names the stack and must be the same at the next start: leftovers of a former run are found by it.
    """

    def __init__(
        self,
        specs: Sequence[ServiceSpec],
        *,
        mark: str,
        on_change: Callable[[tuple[ServiceStatus, ...]], None] = lambda _: None,
    ) -> None:
        """Starts nothing yet; StackError if the dependencies make no sense."""
        self._levels = dependency_levels(specs)
        self._mark = mark
        self._on_change = on_change
        self._shown: tuple[ServiceStatus, ...] = ()
        self._stopping = threading.Event()
        self._probes = ThreadPoolExecutor(max_workers=max(1, len(specs)), thread_name_prefix="probe")
        # the write end stays in this process alone: when it closes, for whatever reason, the guards kill everything
        self._lifeline, self._lifeline_writer = os.pipe()
        self._services = {spec.name: _Service(spec, self._spawn) for spec in specs}
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Returns at once; `statuses` and `wait_ready` show how it goes."""
        sweep(self._mark)
        self._thread.start()

    def statuses(self) -> tuple[ServiceStatus, ...]:
        """One per service, in the order they were given."""
        return tuple(service.status for service in self._services.values())

    def wait_ready(self, show: Callable[[tuple[ServiceStatus, ...]], None] = lambda _: None) -> None:
        """Blocks until every awaited service is ready, showing the statuses as they change; StackError if one fails."""
        while True:
            statuses = self.statuses()
            show(statuses)
            if failed := [status for status in statuses if status.state is ServiceState.FAILED]:
                raise StackError(self._explain(failed[0]))
            if all(
                status.state is ServiceState.READY for status in statuses if self._services[status.name].spec.awaited
            ):
                return
            if self._stopping.wait(TICK_S):
                raise StackError("the stack was stopped while it was starting")

    def stop(self) -> None:
        """Stops all in reverse order, each with its grace time; interrupted, it kills the rest at once."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            for level in reversed(self._levels):
                self._stop_level(level)
        finally:
            self._cut_lifeline()
            self._probes.shutdown(wait=False, cancel_futures=True)
            self._publish()

    def _stop_level(self, names: Iterable[str]) -> None:
        services = [self._services[name] for name in names]
        for service in services:
            service.ask_to_stop()
        for service in services:
            service.wait_stopped()

    def _cut_lifeline(self) -> None:
        for descriptor in (self._lifeline_writer, self._lifeline):
            with contextlib.suppress(OSError):  # closed by an earlier stop
                os.close(descriptor)

    def _spawn(self, spec: ServiceSpec) -> Child:
        return Child(spec, lifeline=self._lifeline, mark=self._mark)

    def _run(self) -> None:
        while not self._stopping.wait(TICK_S):
            for service in self._services.values():
                service.tick(self._dependencies_met(service.spec), self._probes)
            self._publish()

    def _dependencies_met(self, spec: ServiceSpec) -> bool:
        return all(self._services[name].was_ready for name in spec.depends_on)

    def _publish(self) -> None:
        statuses = self.statuses()
        if statuses != self._shown:
            self._shown = statuses
            self._on_change(statuses)

    def _explain(self, status: ServiceStatus) -> str:
        log = self._services[status.name].spec.log
        return f"{status.name} did not start: {status.detail}. The end of {log}:\n{last_lines(log)}"


class _Service:
    """The life of one service; touched by the supervisor's thread alone, but for reading `status`."""

    def __init__(self, spec: ServiceSpec, spawn: Callable[[ServiceSpec], Child]) -> None:
        self.spec = spec
        self.status = ServiceStatus(spec.name, since=time.time())
        self.was_ready = False
        self._spawn = spawn
        self._child: Child | None = None
        self._probe: Future[bool] | None = None
        self._probe_again = 0.0
        self._ready_at = 0.0
        self._failures = 0
        self._restart_at = 0.0

    def tick(self, dependencies_met: bool, probes: ThreadPoolExecutor) -> None:
        """One step; never blocks longer than a fork."""
        state, now = self.status.state, time.monotonic()
        if (state is ServiceState.WAITING and dependencies_met) or (
            state is ServiceState.RESTARTING and now >= self._restart_at
        ):
            self._start()
        elif self._child is not None and (code := self._child.exit_code) is not None:
            self._after_exit(f"it ended with code {code}")
        elif state is ServiceState.STARTING and self._child is not None:
            self._look_whether_ready(self._child, now, probes)

    def _start(self) -> None:
        self._probe, self._probe_again = None, 0.0
        try:
            if self.spec.prepare is not None:
                self.spec.prepare()
            self._child = self._spawn(self.spec)
        except (OSError, StackError) as error:
            self._after_exit(str(error))
        else:
            self._become(ServiceState.STARTING, pid=self._child.pid)

    def _look_whether_ready(self, child: Child, now: float, probes: ThreadPoolExecutor) -> None:
        age = now - child.started
        if self._probe is not None and self._probe.done():
            said_yes = self._probe.exception() is None and self._probe.result()
            self._probe, self._probe_again = None, now + PROBE_EVERY_S
            if said_yes:
                self.was_ready, self._ready_at = True, now
                self._become(ServiceState.READY, pid=child.pid)
                return
        if age > self.spec.ready_timeout_s:
            child.kill()
            # one that only just hung gets no five tries of a minute each
            self._after_exit(f"it was not ready within {self.spec.ready_timeout_s:.0f} s", final=True)
        elif self._probe is None and now >= self._probe_again and age >= self.spec.settle_s:
            self._probe = probes.submit(self.spec.ready)

    def _after_exit(self, reason: str, *, final: bool = False) -> None:
        self._child = None
        stable = self.status.state is ServiceState.READY and time.monotonic() - self._ready_at > STABLE_S
        self._failures = 1 if stable else self._failures + 1
        decision = after_exit(failures=self._failures, was_ready=self.was_ready, reason=reason)
        if isinstance(decision, GiveUp) or (final and not self.was_ready):
            self._become(ServiceState.FAILED, detail=reason if final else getattr(decision, "reason", reason))
            return
        self._restart_at = time.monotonic() + decision.delay_s
        self._become(ServiceState.RESTARTING, restarts=self.status.restarts + 1, detail=reason)

    def ask_to_stop(self) -> None:
        if self._child is not None:
            self._child.ask_to_stop()

    def wait_stopped(self) -> None:
        if self._child is not None:
            self._child.wait_stopped()
            self._child = None
        if self.status.state is not ServiceState.FAILED:
            self._become(ServiceState.STOPPED)

    def _become(
        self, state: ServiceState, *, pid: int | None = None, restarts: int | None = None, detail: str = ""
    ) -> None:
        self.status = replace(
            self.status,
            state=state,
            pid=pid,
            restarts=self.status.restarts if restarts is None else restarts,
            since=time.time(),
            detail=detail,
        )


def dependency_levels(specs: Sequence[ServiceSpec]) -> tuple[tuple[str, ...], ...]:
    """Names in groups that may start together, dependencies first; StackError on a cycle, a gap or a double name."""
    graph = {spec.name: spec.depends_on for spec in specs}
    if len(graph) < len(specs):
        raise StackError("two services have the same name: give each its own")
    if unknown := {name for needs in graph.values() for name in needs} - graph.keys():
        raise StackError(f"services depend on {sorted(unknown)}, which nobody starts: add or remove them")
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        raise StackError(f"services depend on each other in a circle: {error.args[1]}") from error
    levels = []
    while sorter.is_active():
        levels.append(tuple(sorter.get_ready()))
        sorter.done(*levels[-1])
    return tuple(levels)
