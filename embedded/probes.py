"""Asks a service over the network whether it can be used; every question ends within two seconds."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

from embedded.ports import LOOPBACK

TIMEOUT_S = 2.0
# a proxy in the environment is for the outside world, not for the loopback address
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def http_answers(url: str) -> bool:
    """Whether GET `url` gives a 2xx answer."""
    try:
        with _OPENER.open(url, timeout=TIMEOUT_S) as response:
            return bool(200 <= response.status < 300)
    except (OSError, ValueError):
        return False


def http_listens(url: str) -> bool:
    """Whether GET `url` gives any answer, a 401 included."""
    try:
        return http_answers_at_all(url)
    except (OSError, ValueError):
        return False


def http_answers_at_all(url: str) -> bool:
    """As `http_listens`, but raises what the connection raises."""
    try:
        with _OPENER.open(url, timeout=TIMEOUT_S):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True


def valkey_pongs(port: int, password: str) -> bool:
    """Whether the server has loaded its data and takes this password."""
    try:
        with socket.create_connection((LOOPBACK, port), TIMEOUT_S) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.sendall(_command("AUTH", password) + _command("PING") + _command("QUIT"))
            answer = b""
            while chunk := connection.recv(256):
                answer += chunk
    except OSError:
        return False
    return b"+PONG" in answer


def _command(*words: str) -> bytes:
    parts = [f"*{len(words)}"]
    for word in words:
        parts += [f"${len(word.encode())}", word]
    return ("\r\n".join(parts) + "\r\n").encode()
