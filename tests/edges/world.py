"""A deployment of real Valkey, real S3 and a fake Label Studio, and a folder of things that nobody should be given."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cli.connect import open_deployment
from labelloop.config.project import ProjectConfig
from labelloop.labels.results import make_label_config
from labelloop.objects.formats import Kind, write
from labelloop.records.json import digest
from labelloop.records.snapshots import Latest
from labelloop.records.versions import BackboneRecord
from labelloop.store.projects import ProjectRecord, dump_record
from labelloop.store.runs import RunStore
from labelloop.store.snapshots import SnapshotStore
from operations.deployment import Deployment
from operations.projects.wiring import ensure_bucket
from tests.fakes.studio_api import StudioApi
from tests.fakes.studio_server import serving
from tests.integration.conftest import KEYS
from tests.unit.worlds.operations import OpsWorld

TOKEN = "token-of-the-tests"
NOBODY = "http://127.0.0.1:1"  # nothing listens there
TITLE = "pets [red]x[/]"


@dataclass(frozen=True)
class Place:
    """What the commands are given."""

    folder: Path
    env: Mapping[str, str]
    api: StudioApi
    deployment: Deployment
    record: ProjectRecord


@contextmanager
def place(folder: Path, valkey_url: str, s3_endpoint: str) -> Iterator[Place]:
    """One wired project `pets` with two versions, of which v2 is live; a second server `two` with two projects."""
    api = StudioApi()
    number = int(api.project(TITLE, make_label_config(["cat", "dog", "owl"]))["id"])
    with serving(api, TOKEN) as url:
        env = {
            "LABELLOOP_STUDIO_URL": url, "LABELLOOP_STUDIO_TOKEN": TOKEN, "LABELLOOP_S3_ENDPOINT": s3_endpoint,
            **KEYS, "LABELLOOP_REDIS_URL": valkey_url,
            "LABELLOOP_STATE_BUCKET": "edges", "LABELLOOP_IMAGE_BUCKETS": "edge-images", "LABELLOOP_OFFLINE": "1",
            "LABELLOOP_BACKEND_URL": NOBODY, "LABELLOOP_CACHE_DIR": str(folder / "cache"),
        }  # fmt: skip
        _write_files(folder)
        with environment(env):
            deployment = open_deployment(folder / "none")
            record = _project(deployment, number, folder)
            try:
                yield Place(folder, env, api, deployment, record)
            finally:
                deployment.close()


@contextmanager
def environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Variables for the length of a block; None takes one away."""
    before = dict(os.environ)
    os.environ.update({k: v for k, v in values.items() if v is not None})
    for name in (k for k, v in values.items() if v is None):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _project(deployment: Deployment, number: int, folder: Path) -> ProjectRecord:
    ensure_bucket(deployment.s3, "edges")
    ensure_bucket(deployment.s3, "edge-images")
    found = deployment.studio.project(number)
    record = ProjectRecord("main", number, found.created, TITLE, ProjectConfig(name="pets"), found.label_config,
                           "s3://edge-images/pets/")  # fmt: skip
    world = OpsWorld()  # its stores, on the real bucket
    world.deployment, world.record, world.store = deployment, record, deployment.within(record)  # type: ignore[assignment]
    world.snapshots, world.runs = SnapshotStore(world.store), RunStore(world.store)
    world.registry = deployment.registry(record)
    deployment.projects.put(record)
    shape = {"size": 8, "crop": 1.0, "crop_mode": "squash", "interpolation": "bilinear", "mean": [0.0], "std": [1.0]}
    network = BackboneRecord("b", "pixels", {}, shape, 2, "", "built in")
    world.store.put("backbones/b/backbone.json", write(Kind.BACKBONE, asdict(network)))
    world.images(["a.png", "b\x1b[31m.png"], tmp=folder / "cache")
    world.answer(1, "a.png", "cat")
    world.answer(2, "b\x1b[31m.png", "dog")
    snapshot = world.freeze()
    for _ in range(2):
        version = world.version(snapshot.id)
        world.deploy(version)
        world.run("promote", snapshot.id, version=version)
    assert isinstance(world.snapshots.latest(), Latest)
    return record


def _write_files(folder: Path) -> None:
    for name, data in _files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    _image_folders(folder)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "to-pipe").symlink_to(folder / "pipe")


def _files() -> dict[str, bytes]:
    rows = ", ".join(["*a"] * 9)
    bomb = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{rows.replace('*a', '*' + chr(97 + i))}]\n" for i in range(8)
    )
    yamls = {
        "empty": "", "comment": "# nothing yet\n", "list": "- a\n", "text": "hello", "twice": "name: a\nname: b\n",
        "yes": "name: pets\nlabels: [yes, no]\n", "numbers": "labels: [0, 1]\n", "float": "labels: [1.0, 2.0]\n",
        "null": "labels: [null, cat]\n", "dates": "labels: [2024-01-01, cat]\n", "on": "labels: [on, off]\n",
        "octal": "labels: [010, 011]\n", "map": "label_map: {no: cat}\n", "inf": "refresh: {throttle_s: .inf}\n",
        "nan": "refresh: {throttle_s: .nan}\n", "big": "refresh: {throttle_s: 1e400}\n",
        "minus": "refresh: {throttle_s: -1}\n", "huge": "refresh: {after: 99999999999999999999}\n",
        "switch": "refresh: {after: yes}\n", "percent": "stop: {target: 92}\n", "strange": "refesh: {after: 3}\n",
        "deep": "a: " + "[" * 100_000, "bomb": bomb, "self": "a: &a [*a]\n", "python": "a: !!python/name:os.system\n",
        "broken": "name: {a: b\n", "tab": "a:\n\t- b\n", "network": "name: pets\nbackbone: {name: resnet81}\n",
        "weights": "name: pets\nbackbone: {name: resnet18, pretrained: true}\n", "short": "name: ab\n",
        "file": "name: pets\nbackbone: {name: resnet18, pretrained: nothere.safetensors}\n",
        "options": "name: pets\nbackbone: {name: pixels, options: {colour: 3}}\n", "long": f"name: {'x' * 51}\n",
        "slash": "name: a/../b\n", "blank": "name: pets\nlabels: ['cat', ' ']\n", "same": "labels: ['cat', 'cat']\n",
        "one": "name: pets\nlabels: ['cat']\n", "cron": "retrain: {cron: always}\n",
        "search": "space: {retrain.epochs: {integer: [3, 1]}}\n", "search-empty": "", "search-inf":
        "space: {retrain.learning_rate: {real: [0.1, .inf]}}\n", "search-far": "space: {name: {choice: [a]}}\n",
        "set": "labels: !!set {a, b}\n", "bytes": "name: !!binary aGFsbG8=\n", "half": 'labels: ["a\\ud800", "b"]\n',
        "person": "weights: {annotators: {yes: 2}}\n", "many": "".join(f"k{i}: 1\n" for i in range(500)),
        "never": "name: pets\nretrain: {cron: '0 0 31 2 *'}\n", "chance": "name: pets\nretrain: {cron: 'R R * * *'}\n",
        "untrained": "name: pets\nbuckets: {test: 0.7, audit: 0.3}\n",
        "tag": "name: pets\nbackbone: {name: resnet18.x}\n",
        "nobody": "name: pets\nhead: {kind: ensemble, members: []}\n",
        "vast": "name: pets\nbackbone: {name: pixels, options: {projection: 1000000000000}}\n",
        "labels": "name: pets\nlabels: ['cat', 'dog']\n",
    }  # fmt: skip
    record = json.loads(dump_record(ProjectRecord("main", 1, 0, "x", ProjectConfig(), make_label_config(["a", "b"]),
                                                  "s3://edge-images/x/")))  # fmt: skip
    return {f"{name}.yaml": text.encode() for name, text in yamls.items()} | {
        "latin.yaml": "name: Müller\n".encode("latin-1"), "binary.yaml": bytes(range(256)), "nul.yaml": b"name: a\0b",
        "large.yaml": b"# " + b"x" * 1_100_000, "file": b"I am a file", "zeros.tar": bytes(20_480),
        "text.tar": b"not a tar file", "state/stack.json": b"[1]", "state-deep/stack.json": b"[" * 100_000,
        "cut.tar": _tar({"manifest.json": b"{}"})[:700], "none.tar": _tar({"state/a": b"x"}),
        "up.tar": _tar({"../../etc/passwd": b"x"}), "manifest-list.tar": _tar({"manifest.json": b"[1]"}),
        "manifest-rows.tar": _tar({"manifest.json": _manifest(["abc", "def"])}),
        "manifest-deep.tar": _tar({"manifest.json": b"[" * 100_000}),
        "manifest-kinds.tar": _tar({"manifest.json": _manifest([["project.json", "12", None]])}),
        "newer.tar": _tar({"manifest.json": b'{"format": 99, "objects": []}'}),
        "no-project.tar": _tar({"manifest.json": _manifest([])}),
        "project-empty.tar": _backup(b"{}"), "project-list.tar": _backup(b"[1]"),
        "project-id.tar": _backup(json.dumps({**record, "id": "1/../../users"}).encode()),
        "project-config.tar": _backup(json.dumps({**record, "config": {"seed": "x"}}).encode()),
        "project-bucket.tar": _backup(json.dumps({**record, "image_uri": "s3://secrets/x/"}).encode()),
        "project-bare.tar": _backup(json.dumps(record).encode()),
        "bad.csv": b"name,class\na.png,cat\n", "latin.csv": "file,label\nä.png,cat\n".encode("latin-1"),
        "lost.csv": b"file,label\nnothere.png,cat\n",
        "ours.csv": b"file,label\n../../etc/passwd.png,cat\n", "nul.csv": b"file,label\na\0.png,cat\n",
        "loop.csv": b"file,label\nround/1.png,cat\n",
    }  # fmt: skip


def _manifest(objects: list[object]) -> bytes:
    return write(Kind.BACKUP, {"objects": objects, "tasks": 0})


def _backup(project: bytes) -> bytes:
    return _tar(
        {"project.json": project, "manifest.json": _manifest([["project.json", len(project), digest(project)]])}
    )


def _tar(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _image_folders(folder: Path) -> None:
    pixels = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(pixels, "PNG")
    one, odd, lost = folder / "one-class" / "cat", folder / "odd", folder / "lost"
    for path in (one, odd / "cat", odd / "d\nog", lost):
        path.mkdir(parents=True)
        (path / "1.png").write_bytes(pixels.getvalue())
    (odd / "round").symlink_to(odd / "round")
    (lost / "1.png").unlink()
    Path(os.fsdecode(os.fsencode(lost) + b"/\xff\xfe.png")).write_bytes(pixels.getvalue())
