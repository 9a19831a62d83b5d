"""`python -m bench.faults.kills`: a retrain that is killed at a random moment ends as one that is not.

Each run is a process of its own with a real S3 server as its store. It is killed with SIGKILL once, at a moment drawn
evenly over the time that an undisturbed run takes, and begun again. What both leave is compared: the losses of every
epoch, the weights (by hash), the head (by hash) and the figures of the evaluation.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from bench.deploys import stores
from bench.finetune import configured
from bench.tools.offline import OfflineProject, folders
from labelloop.config.settings import load_settings
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.records.json import to_dict
from retrain_worker.refresh import refresh
from retrain_worker.retrain import retrain
from tests.integration.conftest import KEYS

STOPWATCHES = {"seconds", "waited_s"}


def run(asked: argparse.Namespace) -> None:
    """One attempt, in this process: what it ends with, as one line."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    client = s3_client(load_settings({"LABELLOOP_S3_ENDPOINT": asked.s3, **KEYS}))
    if asked.bucket not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket=asked.bucket)
    train, _ = folders(asked.train, None, 0.0)
    config = configured(asked.config, asked.set)
    world = OfflineProject(config, train, asked.folder, S3Store(client, asked.bucket))
    if world.project.registry.live() is None:
        refresh(world.context, world.project, world.snapshot)
    print("ready", flush=True)
    judged = retrain(world.context, world.project, world.snapshot)
    assert judged.version is not None
    version = world.project.registry.version(judged.version)
    epochs = [{k: v for k, v in e.items() if k not in STOPWATCHES} for e in judged.training["epochs"]]
    print(json.dumps({
        "resumed_at": judged.training["resumed_at"], "epochs": epochs, "backbone": version.backbone,
        "head": version.head_sha256, "evaluation": to_dict(replace(judged.evaluation, artefact=None)),
    }), flush=True)  # fmt: skip


def attempt(words: list[str], kill_after_s: float | None) -> tuple[dict[str, Any] | None, float]:
    """(what it ended with, None where it was killed; seconds of the retrain)."""
    process = subprocess.Popen([sys.executable, "-m", "bench.faults.kills", *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    began = time.monotonic()
    if kill_after_s is not None:
        try:
            process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None, time.monotonic() - began
    line = process.stdout.read().strip()
    assert process.wait() == 0
    return json.loads(line), time.monotonic() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True, help="class folders")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", help=argparse.SUPPRESS)
    parser.add_argument("--bucket", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.s3:
        run(asked)
        return
    draw, same = random.Random(asked.seed), 0
    with tempfile.TemporaryDirectory() as folder, stores(Path(folder) / "stores") as (s3, _):
        words = [
            "--train",
            str(asked.train),
            "--config",
            str(asked.config),
            *(w for s in asked.set for w in ("--set", s)),
        ]
        words += ["--s3", s3]

        def place(n: int) -> list[str]:
            return [*words, "--bucket", f"kills-{n}", "--folder", f"{folder}/{n}"]

        whole, seconds = attempt(place(0), None)
        assert whole is not None
        print(f"undisturbed: {seconds:.1f} s, {len(whole['epochs'])} epochs, backbone {whole['backbone']}")
        for n in range(1, asked.kills + 1):
            moment = draw.uniform(0, seconds)
            killed, _ = attempt(place(n), moment)
            ended, took = (killed, 0.0) if killed else attempt(place(n), None)
            assert ended is not None
            resumed = ended.pop("resumed_at")
            equal = ended == {k: v for k, v in whole.items() if k != "resumed_at"}
            same += equal
            told = "ended before" if killed else f"went on after epoch {resumed}, {took:.1f} s more"
            print(f"killed after {moment:.1f} s: {told}; {'equal' if equal else 'DIFFERENT'}", flush=True)
    print(json.dumps({"bench": "kills", "runs": asked.kills, "equal": same}))


if __name__ == "__main__":
    main()
