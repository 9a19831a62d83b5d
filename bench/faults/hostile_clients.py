"""`python -m bench.faults.hostile_clients`: 16 clients send the worst twenty images, a good one asks beside.

Prints the most memory of all the backend's processes, how the good client and /health fared, and what the others got.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from bench.deploys import stores
from tests.hostile.worst import WORST
from tests.integration.worlds.hostile import Attack, attack, upload_worst
from tests.integration.worlds.serving import environment, next_version, started, wait_for


def told(seen: Attack, clients: int) -> None:
    """For people, and one line for machines."""
    good, health = (np.percentile(values or [np.nan], [50, 99]) for values in (seen.good_s, seen.health_s))
    print(f"{clients} clients with {len(WORST)} images a call: {dict(seen.calls)}, {seen.labelled} labels")
    print(f"memory at most {seen.peak / 1e6:.0f} MB: {[part // 10**6 for part in seen.parts]} by process")
    print(f"good calls: {len(seen.good_s)} answered whole, {len(seen.good_failures)} not {seen.good_failures[:3]}")
    print(f"good calls: median {good[0]:.2f} s, p99 {good[1]:.2f} s; /health {health[0]:.3f} s, {health[1]:.3f} s")
    print(json.dumps({
        "clients": clients, "peak_mb": round(seen.peak / 1e6), "good": len(seen.good_s),
        "good_failed": len(seen.good_failures), "good_p50_s": round(good[0], 3), "good_p99_s": round(good[1], 3),
        "health_p99_s": round(health[1], 3), "calls": seen.calls,
    }))  # fmt: skip


def main() -> None:
    """With servers of its own, in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    images = {name: make() for name, make in WORST.items()}
    with (
        tempfile.TemporaryDirectory() as folder,
        stores(Path(folder)) as (s3_endpoint, redis_url),
        started(environment(s3_endpoint, redis_url), Path(folder) / "backend.log") as served,
    ):
        served.deploy(next_version(served, served.world.backbone(), 1))
        wait_for(lambda: served.version() == "v1", 60)
        worst = upload_worst(served, images)
        told(attack(served, worst, clients=asked.clients, seconds=asked.seconds), asked.clients)


if __name__ == "__main__":
    main()
