"""`python -m bench.training`: our fine-tune loop beside a plain torchvision loop, same network, settings and machine.

Both take turns, so that what else the machine does hits both. The peer is what people write: ImageFolder, torchvision
transforms, a DataLoader with the number of workers that serves it best, the same optimiser, batches and loss.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from bench.tools.offline import PREFIX, Files, folders
from labelloop.config.project import BackboneSpec
from labelloop.config.settings import load_settings
from labelloop.config.training import Retrain
from labelloop.model import net
from labelloop.records.images import Example, Split
from labelloop.records.json import digest
from operations.projects.imagefolder import LabelledFile
from retrain_worker.training.data import PixelSource, parts_of
from retrain_worker.training.fit import FineTune, fit
from retrain_worker.training.pixel_cache import PixelCache

BATCH = 32
RATE = 1e-3


def ours(backbone: net.Backbone, files: Sequence[LabelledFile], cache: Path, epochs: int) -> dict[str, float]:
    """Images a second of all epochs, the share of that time spent waiting for data, and the seconds of decoding."""
    contents = {PREFIX + f.key: digest(f.path.read_bytes()) for f in files}
    examples = [Example(i, PREFIX + f.key, f.key, Split.TRAIN, str(f.label)) for i, f in enumerate(files)]
    policy = Retrain(
        epochs=epochs, batch_size=BATCH, validation=0, schedule="constant", learning_rate=RATE, backbone_rate=1.0,
        warm_head=False, freeze_norm=False, precision="fp32", mirror=True,
    )  # fmt: skip
    began = time.monotonic()
    kept = PixelCache(cache, backbone.record.preprocessing, backbone.square.size)
    parts = parts_of(examples, PixelSource(Files(files), backbone, kept, contents), policy, 1, lambda *_: None)
    decoded = time.monotonic() - began
    history = fit(FineTune(backbone.clone(), parts, policy, 0), None)
    return {"images_per_s": history.images_per_s, "waited": history.waited_share, "decode_s": decoded}


def peer(backbone: net.Backbone, folder: Path, rows: Sequence[int], workers: int, epochs: int) -> float:
    """Images a second."""
    shape = backbone.record.preprocessing
    size = int(shape["size"])
    seen = transforms.Compose([
        transforms.Resize(size), transforms.CenterCrop(size), transforms.RandomHorizontalFlip(), transforms.ToTensor(),
        transforms.Normalize(shape["mean"], shape["std"]),
    ])  # fmt: skip
    images = datasets.ImageFolder(str(folder), seen)
    loader: Any = DataLoader(Subset(images, list(rows)), BATCH, shuffle=True, num_workers=workers)
    body = backbone.clone().module.to(memory_format=torch.contiguous_format)
    model = nn.Sequential(body, nn.Linear(backbone.record.dimension, len(images.classes))).train()
    optimiser, loss = torch.optim.AdamW(model.parameters(), RATE), nn.CrossEntropyLoss()
    began = time.monotonic()
    for _ in range(epochs):
        for pixels, targets in loader:
            optimiser.zero_grad()
            loss(model(pixels), targets).backward()
            optimiser.step()
    return epochs * len(rows) / (time.monotonic() - began)


def main() -> None:
    """Measure and print."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="class folders")
    parser.add_argument("--count", type=int, default=256, help="images, drawn evenly")
    parser.add_argument("--backbone", default="mobilenetv2_100")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="of the peer: its best one counts")
    asked = parser.parse_args()
    files, _ = folders(asked.images, None, 0.0)
    some = sorted(range(len(files)), key=lambda i: digest(str(i).encode()))[: asked.count]
    spec = BackboneSpec(name=asked.backbone, pretrained=False, image_size=asked.size)
    backbone = net.build(spec, load_settings().weights_dirs, offline=True)
    ahead, behind = [], []
    for number in range(asked.rounds):
        with tempfile.TemporaryDirectory() as cache:
            found = ours(backbone, [files[i] for i in some], Path(cache), asked.epochs)
        theirs = {n: peer(backbone, asked.images, some, n, asked.epochs) for n in asked.workers}
        ahead.append(found)
        behind.append(max(theirs.values()))
        print(f"round {number + 1}: ours {found['images_per_s']:.1f} images/s (waited {100 * found['waited']:.1f} %, "
              f"decoding once {found['decode_s']:.1f} s), peer " +
              ", ".join(f"{v:.1f} with {n} workers" for n, v in theirs.items()), flush=True)  # fmt: skip
    fast, slow = statistics.median(f["images_per_s"] for f in ahead), statistics.median(behind)
    whole = [asked.count * asked.epochs / f["images_per_s"] + f["decode_s"] for f in ahead]
    print(json.dumps({
        "bench": "training", "backbone": asked.backbone, "size": asked.size, "images": asked.count, "ours": fast,
        "peer": slow, "ratio": fast / slow, "waited": statistics.median(f["waited"] for f in ahead),
        "ratio_with_decoding": asked.count * asked.epochs / statistics.median(whole) / slow,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
