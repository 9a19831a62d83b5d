"""Requests to the REST API as nobody should send them: which of them is answered otherwise than in words.

    python -m bench.faults.hostile_requests [--count 100000] [--seed 1] [--clients 8]

Mutated images, mutated bodies, any JSON in any place, odd paths, queries and headers, sent to the front door and a
backend as processes, over a real S3 server and Valkey. Wanted: no 5xx but 503 with Retry-After, every error a problem,
no request that hangs, and memory that stays.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bench.faults.hostile import NASTY
from labelloop.web.problems import PROBLEM
from tests.hostile.mutants import mutants, originals
from tests.integration.api.processes import Running, running_api
from tests.integration.conftest import servers
from tests.unit.worlds.backend import picture

SLOW_S = 30.0
GOOD = frozenset({200, 202, 302})
TYPES = ("application/json", "multipart/form-data; boundary=b", "multipart/form-data", "text/plain", "", "\x7f",
         "application/json; charset=utf-16", "multipart/form-data; boundary=" + "b" * 300)  # fmt: skip
NAMES = ("X-Request-Id", "Authorization", "Content-Encoding", "Origin", "Host", "Accept", "Range", "Expect")
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE")
WORDS = ("v1", "models", "projects", "classify", "status", "promote", "..", "%2e%2e", "%00", "", "é", "\ud800",
         "a" * 3000, "keys", "docs", "openapi.json", "%ff", ";", "?")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Hostile:
    """One request; it follows from seed and number alone."""

    number: int
    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def hostile(count: int, seed: int, project: str) -> Iterator[Hostile]:
    """The first ``count``."""
    good = originals([_picture(n) for n in range(3)])
    images = mutants(good, count, seed)
    for number, image in enumerate(images):
        draw = random.Random(f"{seed}-{number}")
        yield MAKERS[draw.randrange(len(MAKERS))](number, draw, image, project)


def fault_of(status: int, headers: Mapping[str, str], body: bytes, took_s: float = 0.0, *, head: bool = False) -> str:
    """What is wrong with an answer; nothing where it is as it should be."""
    if took_s > SLOW_S:
        return f"it took {took_s:.0f} s"
    if status >= 500 and status != 503:
        return f"status {status}"
    if status in {429, 503} and "Retry-After" not in headers:
        return f"{status} without Retry-After"
    if status in GOOD or (status == 200) or head:
        return ""
    if headers.get("Content-Type") != PROBLEM:
        return f"{status} is no problem but {headers.get('Content-Type')!r}"
    return "" if json.loads(body).get("status") == status else "the problem has another status"


def _picture(seed: int) -> Any:
    from io import BytesIO

    from PIL import Image

    return Image.open(BytesIO(picture(seed, 32)))


def _form(fields: Mapping[str, str], *images: bytes) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n'.encode() for n, v in fields.items()]
    parts += [
        b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n' + i + b"\r\n" for i in images
    ]
    return b"".join(parts) + b"--b--\r\n"


def _image(number: int, draw: random.Random, image: bytes, project: str) -> Hostile:
    body = _form({"project": project} if draw.random() < 0.5 else {}, image)
    return Hostile(number, "POST", "/v1/classify", body, {"Content-Type": TYPES[1]})


def _base64(number: int, draw: random.Random, image: bytes, project: str) -> Hostile:
    text = base64.b64encode(image).decode()
    if draw.random() < 0.2:
        text = _spoilt(draw, text.encode()).decode("latin-1")
    return _json(number, "/v1/classify", {"images": [{"base64": text}], "project": project})


def _anything(number: int, draw: random.Random, _image: bytes, project: str) -> Hostile:
    body: Any = {"images": [{"uri": f"s3://images/animals/{draw.randrange(9)}.png"}], "project": project, "top_k": 2,
                 "probabilities": True}  # fmt: skip
    nasty = NASTY[draw.randrange(len(NASTY))]
    place = draw.randrange(7)
    if place == 0:
        body = nasty
    elif place in {1, 2}:
        body["images"][0] = nasty if place == 1 else {"uri": nasty}
    else:
        body[("images", "project", "top_k", "probabilities")[place - 3]] = nasty
    return _json(number, "/v1/classify", body)


def _bytes(number: int, draw: random.Random, image: bytes, project: str) -> Hostile:
    body = _form({"project": project, "top_k": "2"}, image[:2000])
    if draw.random() < 0.5:
        body = json.dumps({"images": [{"base64": base64.b64encode(image[:500]).decode()}]}).encode()
    return Hostile(number, "POST", "/v1/classify", _spoilt(draw, body), {"Content-Type": draw.choice(TYPES)})


def _decision(number: int, draw: random.Random, _image: bytes, project: str) -> Hostile:
    what = draw.choice(("promote", "reject", "rollback", "retrain"))
    body: Any = {"version": "v99", "why": "x"} if what in {"promote", "reject"} else {"why": "x"}
    nasty = NASTY[draw.randrange(len(NASTY))]
    if draw.random() < 0.3:
        body = nasty
    else:
        body[draw.choice(("version", "why", "mood"))] = nasty
    return _json(number, f"/v1/projects/{project}/{what}", body)


def _path(number: int, draw: random.Random, _image: bytes, project: str) -> Hostile:
    parts = [draw.choice((*WORDS, project)) for _ in range(draw.randrange(1, 6))]
    query = f"?{draw.choice(WORDS)}={draw.choice((*WORDS, project))}" if draw.random() < 0.5 else ""
    text = ("/" + "/".join(parts).lstrip("/") + query).encode("utf-8", "replace").decode()
    path = "".join(c if 32 < ord(c) < 127 else "%C3%A9" for c in text)
    return Hostile(number, draw.choice(METHODS), path)


def _head(number: int, draw: random.Random, image: bytes, _project: str) -> Hostile:
    name = draw.choice(
        ("X-Request-Id", "Authorization", "Content-Encoding", "Origin", "Host", "Accept", "Range", "Expect")
    )
    value = draw.choice(("", "x" * 8000, "null", "Bearer ", "100-continue", "gzip", "bytes=0-", "é", "a, b", "ll_x_y"))
    return Hostile(number, "POST", "/v1/classify", _form({}, image[:3000]),
                   {"Content-Type": TYPES[1], name: value.encode("latin-1").decode("latin-1")})  # fmt: skip


MAKERS = (_image, _image, _image, _base64, _base64, _anything, _bytes, _bytes, _decision, _path, _head)


def _json(number: int, path: str, body: Any) -> Hostile:
    return Hostile(number, "POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})


def _spoilt(draw: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(out) + 1)
        match draw.randrange(3):
            case 0:
                out[at:at] = draw.randbytes(draw.randrange(1, 9))
            case 1:
                del out[at : at + draw.randrange(1, 30)]
            case _ if at < len(out):
                out[at] ^= 1 << draw.randrange(8)
    return bytes(out)


# --- against processes


def rss_mb(pid: int) -> float:
    """Of a process and its children."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:
            continue
        if int(lines["PPid"]) == pid or int(lines["Pid"]) == pid:
            total += int(lines.get("VmRSS", "0 kB").split()[0])
    return total / 1000


def ask(running: Running, key: str, request: Hostile) -> tuple[int, str]:
    """(status, what is wrong with the answer)."""
    began = time.monotonic()
    more = [(name.encode(), value.encode("latin-1")) for name, value in request.headers.items()]
    headers = [(b"Authorization", f"Bearer {key}".encode()), *more]
    try:
        answer = running.client.request(request.method, request.path, content=request.body, headers=headers)
    except httpx.ReadTimeout:
        return 0, "it hangs"
    except (httpx.LocalProtocolError, httpx.InvalidURL):  # this client cannot send it
        return 0, ""
    except httpx.TransportError as error:
        return 0, type(error).__name__
    took = time.monotonic() - began
    return answer.status_code, fault_of(answer.status_code, answer.headers, answer.content, took,
                                        head=request.method == "HEAD")  # fmt: skip


def run(count: int, seed: int, clients: int) -> bool:
    """Print what was seen; False where anything is wrong."""
    with (
        tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as (redis, s3),
        running_api(s3, redis, Path(folder)) as running,
    ):  # fmt: skip
        return _judge(running, count, seed, clients)


def _judge(running: Running, count: int, seed: int, clients: int) -> bool:
    key = running.whole_key(per_minute=10**6)
    seen, faults, memory = Counter[int](), Counter[str](), []
    pids = (running.process.pid, running.served.process.pid)
    began, last = time.monotonic(), 0
    with ThreadPoolExecutor(clients) as pool:
        requests = hostile(count, seed, running.served.world.record.key)
        for start in range(0, count, max(count // 10, 1)):
            part = [next(requests) for _ in range(min(max(count // 10, 1), count - start))]
            for request, (status, why) in zip(part, pool.map(lambda r: ask(running, key, r), part), strict=True):
                seen[status] += 1
                if why:
                    faults[why] += 1
                    print(f"  {request.number}: {request.method} {request.path[:60]}: {why}")
            memory.append(tuple(round(rss_mb(pid)) for pid in pids))
            last = start + len(part)
            print(
                f"{last:>8,} of {count:,}  {dict(sorted(seen.items()))}  MB front door, backend: {memory[-1]}",
                flush=True,
            )
    good = running.classify(running.header(key)).status_code
    print(f"{last:,} requests in {time.monotonic() - began:.0f} s; a good one afterwards: {good}")
    print(json.dumps({"requests": last, "faults": dict(faults), "statuses": dict(seen), "memory_mb": memory}))
    return not faults and good == 200


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=8)
    given = parser.parse_args()
    raise SystemExit(not run(given.count, given.seed, given.clients))
