"""A real gunicorn, real S3: clients send the worst images, the memory stays bounded and good images are answered."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.worst import WORST
from tests.integration.worlds.hostile import attack, upload_worst
from tests.integration.worlds.serving import environment, next_version, started, wait_for

NAMES = (  # those that are made quickly
    "webp-34-bytes", "webp-at-the-limit", "png-rgba-at-the-limit", "png-16-bit-gray", "png-ten-billion", "png-texts",
    "tiff-huge-tile", "jpeg-million-segments", "gif-largest", "gif-million-blocks", "ppm-text", "avif-at-the-limit",
)  # fmt: skip
MOST = 1_500_000_000  # bytes


def test_the_worst_images_cost_themselves_and_no_memory(s3_endpoint: str, valkey_url: str, tmp_path: Path) -> None:
    with started(environment(s3_endpoint, valkey_url), tmp_path / "backend.log") as served:
        served.deploy(next_version(served, served.world.backbone(), 1))
        wait_for(lambda: served.version() == "v1", 60)
        worst = upload_worst(served, {name: WORST[name]() for name in NAMES})
        seen = attack(served, worst, clients=6, seconds=15)
    print(f"peak {seen.peak / 1e6:.0f} MB of {[part // 10**6 for part in seen.parts]}")
    print(f"good calls {len(seen.good_s)}, slowest {max(seen.good_s):.1f} s")
    assert set(seen.calls) == {"200"}
    assert seen.good_failures == []
    assert seen.good_s
    assert seen.labelled > 0  # some of them are images, after all
    assert seen.peak < MOST
