"""Waitress as the backend uses it: one loop reads whole requests and writes answers, threads only ever see the former.

A slow client, in sending or in reading, costs a socket and the bytes that are here already: never a thread.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

from waitress import wasyncore  # type: ignore[import-untyped]
from waitress.adjustments import Adjustments  # type: ignore[import-untyped]
from waitress.channel import HTTPChannel  # type: ignore[import-untyped]
from waitress.parser import HTTPRequestParser  # type: ignore[import-untyped]
from waitress.server import TcpWSGIServer  # type: ignore[import-untyped]
from waitress.task import WSGITask  # type: ignore[import-untyped]

from ml_backend.entrance.door import FULL, HINTS, MAX_BODY, VIEWS, Door, Lane, Refusal, too_large
from ml_backend.entrance.lanes import Lanes
from ml_backend.entrance.turns import turn

HEADER_S = 10.0  # for a request's head, from its first byte or the connection
BODY_S = 100.0  # for its body, and for an answer to be fetched: as long as Label Studio itself waits
SILENCE_S = 30.0  # in either
IDLE_S = 20.0  # of a connection between two requests
LINGER_S = 2.0  # after a refusal, for what is still being sent: closed at once, the client would not see the answer
ACCEPT_AT_ONCE = 64
TURN_S = 0.5
LIMITS = {
    "ident": None, "log_socket_errors": False, "asyncore_use_poll": True, "cleanup_interval": 1,
    "max_request_header_size": 32 * 1024, "max_request_body_size": 2 * MAX_BODY,  # the door has smaller ones
    "recv_bytes": 256 * 1024, "inbuf_overflow": 2 * MAX_BODY, "outbuf_overflow": 2 * MAX_BODY,  # no temporary files
    "outbuf_high_watermark": 2**40,  # a thread never waits for a reader
    "channel_request_lookahead": 1,  # goes on listening while it answers: so it hears when a client goes
}  # fmt: skip


class Arriving(HTTPRequestParser):  # type: ignore[misc]
    """A request that is coming in. Its head is looked at before its body is read, and its bytes are counted."""

    error: Any
    lane: Lane | None = None

    def __init__(self, adj: Adjustments, door: Door) -> None:
        super().__init__(adj)
        self._door, self._held, self.begun = door, 0, time.time()

    def received(self, data: bytes) -> int:
        taken = int(super().received(data))
        if self.error:
            if not isinstance(self.error, Refusal):
                self.refuse(Refusal(self.error.code, f"{self.error.reason}: {self.error.body}"))
        elif self.lane is None:
            self._enter()
        else:
            self._hold(taken)
        return taken

    def refuse(self, why: Refusal) -> None:
        """Answer with this instead; the rest of the body is not waited for."""
        path = getattr(self, "path", "")
        self.error, self.completed, self.expect_continue = self._door.worded(why, path, self.headers), True, False
        self._give_back()
        self._door.count(path, why.status)

    def close(self) -> None:
        """Its bytes are gone."""
        super().close()
        self._give_back()

    def _enter(self) -> None:
        if self.headers_finished and not self.empty:
            self.lane = self._door.lane_of(self.path)
            why = self._door.refusal(self.path, self.headers, self.content_length)
            if why:
                self.refuse(why)

    def _hold(self, size: int) -> None:
        assert self.lane is not None
        why = too_large(self.lane, self.body_bytes_received)
        if not why and not self._door.budgets[self.lane.name].take(size):
            why = FULL
        elif not why:
            self._held += size
        if why:
            self.refuse(why)

    def _give_back(self) -> None:
        held, self._held = self._held, 0
        if held and self.lane:
            self._door.budgets[self.lane.name].give_back(held)


class RequestTask(WSGITask):  # type: ignore[misc]
    """One request's way through the app."""

    def start(self) -> None:
        super().start()
        if self.channel.server.ending:
            self.set_close_on_finish()  # the next request goes to somebody who stays


class Caller(HTTPChannel):  # type: ignore[misc]
    """One connection. It waits for its client within limits, and never with a thread."""

    task_class = RequestTask
    requests: list[Arriving]
    request: Arriving | None
    close_when_flushed: bool

    def __init__(self, server: Front, sock: socket.socket, addr: Any, adj: Adjustments, map: Any = None) -> None:
        super().__init__(server, sock, addr, adj, map=map)
        self.parser_class = partial(Arriving, door=server.door)
        self.since = time.time()  # when it began to wait for its client, as far as we know
        self.queued_at = 0.0
        self.answered = self.refused = self.lingers = self.must_go = False

    def service(self) -> None:
        request = self.requests[0]
        self.refused = bool(request.error)
        with nullcontext() if self.refused or request.lane is VIEWS else turn():
            super().service()
        self.since, self.answered = time.time(), True

    def handle_read(self) -> None:
        """As waitress has it, but for a wake-up that was not for us: no reason to hang up."""
        try:
            data = self.recv(self.adj.recv_bytes)
        except BlockingIOError:
            return
        except OSError:
            self.handle_close()
            return
        self.connected = bool(data)
        if data:
            self.last_activity = time.time()
            self.received(data)

    def received(self, data: bytes) -> bool:
        return False if self.lingers else bool(super().received(data))

    def handle_write(self) -> None:
        """Where a refused client may still be sending, say that we have finished, and listen a little longer."""
        ending = self.close_when_flushed and self.refused
        self.close_when_flushed = self.close_when_flushed and not ending
        super().handle_write()
        if ending and self.connected:
            self.close_when_flushed = bool(self.total_outbufs_len)
            if not self.close_when_flushed:
                self._linger()

    def handle_close(self) -> None:
        request, self.request = self.request, None
        if request:
            request.close()
        super().handle_close()

    @property
    def is_known(self) -> bool:
        """Whether it has shown a password for the request that is coming in."""
        lane = self.request.lane if self.request else None
        return lane is not None and lane not in {VIEWS, HINTS}

    def overdue(self, at: float) -> bool:
        """Whether its client has had all the time that it gets."""
        if self.requests:
            return False
        if self.lingers or self.total_outbufs_len:
            return self._slow(at, self.since, LINGER_S if self.lingers else BODY_S)
        if self.request is None:
            return at - self.since > (IDLE_S if self.answered else HEADER_S)
        begun = self.request.begun
        return self._slow(at, begun, BODY_S if self.request.headers_finished else HEADER_S)

    def _slow(self, at: float, since: float, limit_s: float) -> bool:
        return at - since > limit_s or at - self.last_activity > SILENCE_S

    def _linger(self) -> None:
        self.lingers, self.since = True, time.time()
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.handle_close()


class Front(TcpWSGIServer):  # type: ignore[misc]
    """One listening socket. At the limit of connections the one that has waited for its client longest goes."""

    def __init__(self, app: Any, sock: socket.socket, door: Door, lanes: Lanes, limit: int, map: Any) -> None:
        self.door, self.ending, self._limit = door, False, limit
        self.active_channels: dict[int, Caller] = {}
        info = (sock.family, sock.type, sock.proto, sock.getsockname())
        adj = Adjustments(**LIMITS, connection_limit=2 * limit)
        super().__init__(app, map, True, sock, dispatcher=lanes, adj=adj, sockinfo=info, bind_socket=False)

    def handle_accept(self) -> None:
        """Take in many at once: those behind a flood must not wait for a turn of the loop for each."""
        for _ in range(ACCEPT_AT_ONCE):
            try:
                accepted = self.accept()
            except OSError:
                return
            if accepted is None:
                return
            if self.crowded and not self._make_room():
                accepted[0].close()
            else:
                self.set_socket_options(accepted[0])
                Caller(self, accepted[0], accepted[1], self.adj, map=self._map)

    def maintenance(self, now: float) -> None:
        """Nothing: it comes in the middle of a turn, when no socket may be closed but the one whose turn it is."""

    def clear_out(self, *, all_overdue: bool) -> None:
        """Between two turns: close those that were marked, and now and then those that are overdue."""
        at = time.time()
        for caller in list(self.active_channels.values()):
            if not caller.requests and (caller.must_go or (all_overdue and caller.overdue(at))):
                caller.handle_close()
            caller.must_go = False

    def stop_accepting(self) -> None:
        """Take in those at the door, then close it; every answer from now on is its connection's last."""
        for _ in range(self.adj.backlog // ACCEPT_AT_ONCE):
            self.handle_accept()
        self.ending, self.accepting = True, False
        self.del_channel()
        self.socket.close()

    @property
    def crowded(self) -> bool:
        """At the limit of connections."""
        return len(self.active_channels) >= self._limit

    def busy(self) -> bool:
        """Whether somebody is being answered, or is in the middle of a request."""
        return any(c.requests or c.request or c.total_outbufs_len for c in list(self.active_channels.values()))

    def _make_room(self) -> bool:
        """Mark the one that has waited longest, strangers first; False where all are being answered."""
        waiting = [c for c in self.active_channels.values() if not c.requests and not c.must_go]
        if waiting:
            min(waiting, key=lambda c: (c.is_known, c.since)).must_go = True
        return bool(waiting)


class Fronts:
    """All listening sockets of one process, and the loop over them and their connections."""

    def __init__(self, app: Any, sockets: Sequence[socket.socket], door: Door, limit: int) -> None:
        self._map: dict[int, Any] = {}
        self._lanes = Lanes(door.lanes)
        self._fronts = [Front(app, sock, door, self._lanes, limit, self._map) for sock in sockets]
        self._looked = 0.0

    def turn(self) -> None:
        """One turn of the loop; half a second at most."""
        wasyncore.loop(timeout=TURN_S, use_poll=True, map=self._map, count=1)
        due = time.monotonic() - self._looked > TURN_S
        if due:
            self._looked = time.monotonic()
            self._lanes.expire()
        for front in self._fronts:
            if due or front.crowded:
                front.clear_out(all_overdue=due)

    def stop_accepting(self) -> None:
        """See `Front.stop_accepting`."""
        for front in self._fronts:
            front.stop_accepting()

    def busy(self) -> bool:
        """See `Front.busy`."""
        return any(front.busy() for front in self._fronts)

    def stop(self) -> None:
        """Let go of all that is left."""
        self._lanes.shutdown()
        wasyncore.close_all(self._map, ignore_all=True)
