"""`python -m bench.serving`: pre-labels a second, ours beside a plain label-studio-ml backend and LitServe, over HTTP.

Real images in a real S3 server, each measured in turn, twice (A B C A B C). Ours: images whose features are kept, and
images that were never seen. Tasks a call, clients and sizes of images are options. CPU time and memory are those of all
processes of a server, its S3 server's not counted. LitServe is no dependency: `--lit FOLDER` names where it lies.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
from PIL import Image

from bench.deploys import stores
from embedded.ports import LOOPBACK, pick_port
from labelloop.clock import stamp
from labelloop.config.project import BackboneSpec
from labelloop.model import net
from labelloop.records.images import ImageFacts, Split
from labelloop.rules.split import group_of, shown_blind, split_of
from labelloop.store.catalogue import Catalogue
from labelloop.store.features import FeatureStore
from tests.integration.serving import Served, environment, started, wait_for

TICK = os.sysconf("SC_CLK_TCK")
SIDES = {"small": (100, 100), "photo": (500, 375), "1MP": (1155, 866), "12MP": (4000, 3000)}


@dataclass(frozen=True, slots=True)
class Cell:
    """One server, one kind of load."""

    server: str
    network: str
    size: str
    tasks: int
    clients: int
    images_s: float
    p50_ms: float
    p95_ms: float
    cpu_ms: float  # of an image, all processes of the server
    peak_mb: float


@dataclass(frozen=True, slots=True)
class Server:
    """Where it listens, and its processes."""

    name: str
    url: str
    group: int
    headers: dict[str, str]


def measured(server: Server, bodies: Sequence[bytes], tasks: int, clients: int, seconds: float) -> tuple[float, ...]:
    """(images a second, p50 ms, p95 ms, CPU ms an image, peak MB) of clients that ask without pause."""
    calls: list[float] = []
    end = [0.0]

    def client(first: int) -> None:
        at = urlsplit(server.url)
        connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=300)
        for body in itertools.islice(itertools.cycle(bodies), first, None):
            began = time.monotonic()
            if began > end[0]:
                return
            connection.request("POST", "/predict", body, server.headers)
            answer = connection.getresponse()
            said = answer.read()
            assert answer.status == 200, said[:300]
            calls.append(time.monotonic() - began)

    before, began = _cpu_s(server.group), time.monotonic()
    end[0] = began + seconds
    threads = [threading.Thread(target=client, args=(n * len(bodies) // clients,)) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    images, spent = len(calls) * tasks, time.monotonic() - began
    p50, p95 = (1000 * float(np.percentile(calls, q)) for q in (50, 95))
    return images / spent, p50, p95, 1000 * (_cpu_s(server.group) - before) / images, _peak_mb(server.group)


def _processes(group: int) -> Iterator[Path]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == group:  # of the session that the server began
            yield stat.parent


def _cpu_s(group: int) -> float:
    total = 0
    for place in _processes(group):
        fields = (place / "stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def _peak_mb(group: int) -> float:
    lines = [line for p in _processes(group) for line in (p / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


@contextmanager
def program(name: str, words: Sequence[str], env: dict[str, str], port: int, log: Path) -> Iterator[Server]:
    """A peer, in a session of its own, once it answers."""
    url = f"http://{LOOPBACK}:{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(words, env={**os.environ, **env}, stdout=out, stderr=out, start_new_session=True)
    try:
        wait_for(lambda: _answers(url), 180)
        yield Server(name, url, process.pid, {"Content-Type": "application/json"})
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def pictures(folder: Path, side: tuple[int, int], count: int, served: Served) -> list[bytes]:
    """Real images, scaled; none that the loop shows blind."""
    share, shares = served.world.record.config.queue.blind, served.world.record.config.buckets.shares()
    found: list[bytes] = []
    for path in sorted(folder.rglob("*.jpg")):
        out = io.BytesIO()
        with Image.open(path) as image:
            image.convert("RGB").resize(side, Image.Resampling.BICUBIC).save(out, "JPEG", quality=88)
        group = group_of(out.getvalue())
        if split_of(group, shares) is Split.TRAIN and not shown_blind(group, share):
            found.append(out.getvalue())
        if len(found) == count:
            break
    return found


def featurise(served: Served, backbone: net.Backbone, uris: Sequence[str], data: Sequence[bytes], folder: Path) -> None:
    """What a worker would have recorded of these images."""
    facts = [ImageFacts(uri, "", group_of(raw), group=group_of(raw)) for uri, raw in zip(uris, data, strict=True)]
    Catalogue(served.world.own).add(facts, stamp())
    etags = {info.key: info.etag for info in served.images.list("")}
    rows = np.concatenate([backbone.features(np.stack([backbone.decode(raw)])) for raw in data])
    features = FeatureStore(served.world.own, backbone.record.id, folder)
    features.add(stamp(), uris, [etags[uri.split("/", 3)[3]] for uri in uris], rows)


def bodies_of(served: Served, uris: Sequence[str], tasks: int) -> list[bytes]:
    """Calls that go through the images again and again."""
    record, turn = served.world.record, itertools.cycle(uris)
    calls = max(1, min(40, 2 * len(uris) // tasks))
    return [
        json.dumps({
            "tasks": [{"id": i, "data": {"image": next(turn)}} for i in range(tasks)],
            "project": record.reference, "label_config": record.label_config,
        }).encode()
        for _ in range(calls)
    ]  # fmt: skip


def run(asked: argparse.Namespace, folder: Path, s3: str, redis: str) -> Iterator[Cell]:
    """Every cell, in turn."""
    env = environment(s3, redis) | {"LABELLOOP_CACHE_DIR": str(folder / "cache")}
    weights = next(
        (p for p in sorted(Path(os.environ.get("LABELLOOP_WEIGHTS", "/none")).glob(f"{asked.network}*"))), None
    )
    backbone = net.build(BackboneSpec(name=asked.network), [weights.parent] if weights else [], offline=True)
    with started(env, folder / "backend.log") as served:
        served.world.record = replace(served.world.record, image_uri=f"s3://{served.bucket}/animals/")
        served.world.projects.put(served.world.record)
        served.world.registry.add_backbone(backbone.record, net.dump(backbone))
        served.deploy(served.world.add(backbone.record, answer=1))
        by_size: dict[str, dict[str, list[str]]] = {}
        for size in asked.sizes.split(","):
            data = pictures(asked.images, SIDES[size], asked.count, served)
            by_size[size] = {"seen": [], "unseen": []}
            for kind, uris in by_size[size].items():
                for n, raw in enumerate(data):
                    served.images.put(f"animals/{size}/{kind}/{n}.jpg", raw)
                    uris.append(f"s3://{served.bucket}/animals/{size}/{kind}/{n}.jpg")
            featurise(served, backbone, by_size[size]["seen"], data, folder / "writer")
        headers = {"Content-Type": "application/json", "Authorization": served.basic}
        ours = {kind: Server(f"ours, {kind}", served.url, served.process.pid, headers) for kind in ("seen", "unseen")}
        wait_for(lambda: served.version() == "v1", 180)
        chosen = folder / "backend.log"
        wait_for(lambda: "runner chosen" in chosen.read_text(), 60)
        print(next(line for line in chosen.read_text().splitlines() if "runner chosen" in line), flush=True)
        path = os.pathsep.join(filter(None, [str(Path.cwd()), str(asked.lit or "")]))
        peers_env = env | {"BENCH_NETWORK": asked.network, "BENCH_FILE": str(weights or ""), "PYTHONPATH": path}
        port = pick_port()
        gunicorn = [
            sys.executable, "-m", "gunicorn", "--workers=1", "--threads=8", "--timeout=600",
            f"--bind={LOOPBACK}:{port}",
            "bench.tools.plain_server:create_app()",
        ]  # fmt: skip
        with program("plain", gunicorn, peers_env, port, folder / "plain.log") as plain:
            yield from _rounds(asked, served, by_size, [ours["seen"], ours["unseen"], plain])
        if asked.lit:
            port = pick_port()
            words = [sys.executable, "-m", "bench.tools.lit_server", str(port)]
            with program("litserve", words, peers_env, port, folder / "lit.log") as lit:
                yield from _rounds(asked, served, by_size, [ours["unseen"], lit])


def _rounds(
    asked: argparse.Namespace, served: Served, by_size: dict[str, dict[str, list[str]]], servers: Sequence[Server]
) -> Iterator[Cell]:
    numbers: Callable[[str], list[int]] = lambda text: [int(n) for n in text.split(",")]  # noqa: E731
    for size, tasks, clients in itertools.product(by_size, numbers(asked.tasks), numbers(asked.clients)):
        for server in [*servers, *servers]:
            uris = by_size[size]["seen" if server.name.endswith(", seen") else "unseen"]
            bodies = bodies_of(served, uris, tasks)
            measured(server, bodies, tasks, clients, asked.seconds / 4)  # warm
            yield Cell(server.name, asked.network, size, tasks, clients,
                       *measured(server, bodies, tasks, clients, asked.seconds))  # fmt: skip


def main() -> None:
    """Measure and print, cell by cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True, help="a folder with JPEG files, searched to its bottom")
    parser.add_argument("--network", default="mobilenetv2_100")
    parser.add_argument("--sizes", default="photo", help=", ".join(SIDES))
    parser.add_argument("--tasks", default="1,8,50,500", help="a call")
    parser.add_argument("--clients", default="1")
    parser.add_argument("--count", type=int, default=200, help="images of each size")
    parser.add_argument("--seconds", type=float, default=8, help="of each cell")
    parser.add_argument("--lit", type=Path, help="folder with LitServe: uv pip install --target FOLDER litserve")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, stores(Path(folder)) as (s3, redis):
        for cell in run(asked, Path(folder), s3, redis):
            shown = {k: round(v, 1) if isinstance(v, float) else v for k, v in asdict(cell).items()}
            print(json.dumps({"bench": "serving", **shown}), flush=True)


if __name__ == "__main__":
    main()
