"""Free TCP ports on the loopback address, for services that get their port beforehand."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection

from labelloop.errors import StackError

LOOPBACK = "127.0.0.1"
# below the ephemeral range (32768 and up on Linux), so that no outgoing connection takes a remembered port
RANGE = range(20_000, 32_000)
TRIES = 200


def is_free(port: int) -> bool:
    """Whether a service could listen on `port` now; connections of a stopped one that linger do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def pick_port(taken: Collection[int] = ()) -> int:
    """A free port that is not in `taken`; at random, so that two stacks that start together do not meet."""
    for _ in range(TRIES):
        port = random.choice(RANGE)
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free TCP port between {RANGE.start} and {RANGE.stop}: close some programs and try again")
