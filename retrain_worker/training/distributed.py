"""One fine-tune in several processes, one per GPU (torchrun): the same loop, each process its share of every batch.

The worker writes the run into a folder, starts `torchrun` on this module, hands its progress on, and reads the result.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from labelloop.config.training import Retrain
from labelloop.errors import LabelloopError
from labelloop.model import net
from labelloop.model.head import Head, load_head
from labelloop.records.json import fields_of
from labelloop.records.versions import BackboneRecord
from retrain_worker.training.batches import Shard
from retrain_worker.training.checkpoint import Checkpoint, Keeper
from retrain_worker.training.fit import Epoch, FineTune, FineTuneHistory, Report, fit
from retrain_worker.training.parts import Part, Parts
from retrain_worker.training.pixel_cache import Images, MappedImages, mapped

JOB, WEIGHTS, ARRAYS, HEAD = "job.json", "weights.safetensors", "arrays.npz", "head.safetensors"
CHECKPOINT, NOTE, RESULT, BEST = "checkpoint.safetensors", "checkpoint.json", "result.json", "best.safetensors"
GRACE_S = 10.0


@dataclass(frozen=True, slots=True)
class Launch:
    """What `fit` takes, and how many processes share it."""

    run: FineTune
    head: Head | None
    processes: int
    folder: Path


def processes_for(policy: Retrain) -> int:
    """As many as the config says; else one per GPU, one where there is none."""
    return policy.processes or max(1, torch.cuda.device_count())


def fit_on_all(launch: Launch) -> FineTuneHistory:
    """`fit` in several processes; the backbone then holds the best epoch's weights, as there. LabelloopError."""
    _write(launch)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(launch.processes),
               "-m", "retrain_worker.training.distributed", str(launch.folder)]  # fmt: skip
    with _started(command) as process:
        output = _follow(process, launch)
    if process.returncode:
        raise LabelloopError(
            f"torchrun ended with code {process.returncode}: {' | '.join(output[-5:]) or 'it said nothing'}"
        )
    launch.run.backbone.module.load_state_dict(read_tensors((launch.folder / BEST).read_bytes()))
    launch.run.backbone.module.eval()
    return history_from(json.loads((launch.folder / RESULT).read_text()))


def history_from(data: dict[str, Any]) -> FineTuneHistory:
    """The inverse of `FineTuneHistory.to_json`."""
    epochs = tuple(Epoch(**e) for e in data["epochs"])
    return FineTuneHistory(**{**data, "epochs": epochs})


@contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process group of its own; whatever happens here, none of it is left."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.stdout:
            process.stdout.close()


def _follow(process: subprocess.Popen[str], launch: Launch) -> list[str]:
    """Hand progress and checkpoints on; what else was said."""
    output: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        message = _parsed(line)
        if message is None:
            output = [*output[-40:], line.strip()]
        elif "report" in message:
            launch.run.report(*message["report"])
        elif "saved" in message:
            launch.run.keeper.save(_read_checkpoint(launch.folder))
    return output


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and message.keys() & {"report", "saved"} else None


def _write(launch: Launch) -> None:
    run, folder = launch.run, launch.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(net.dump(run.backbone))
    arrays: dict[str, Any] = {}
    files: dict[str, Any] = {}
    for name, part in (("train", run.parts.train), ("validation", run.parts.validation)):
        images = _in_a_file(part.images, folder / f"{name}.bin")
        arrays |= {f"{name}_targets": part.targets, f"{name}_weights": part.weights, f"{name}_places": images.places}
        files[name] = {"file": str(getattr(images.rows, "filename", "")), "shape": images.rows.shape}
    np.savez(folder / ARRAYS, **arrays)
    if launch.head is not None:
        (folder / HEAD).write_bytes(launch.head.dump())
    job = {
        "backbone": asdict(run.backbone.record), "policy": run.policy.model_dump(mode="json"), "seed": run.seed,
        "classes": run.parts.classes, "head": launch.head.labels if launch.head else None, "images": files,
    }  # fmt: skip
    (folder / JOB).write_text(json.dumps(job))
    checkpoint = run.keeper.load()
    if checkpoint:
        _write_checkpoint(folder, checkpoint)


def _in_a_file(images: Images, path: Path) -> MappedImages:
    """As the pixel cache maps them; others are written down, so that each process can map them."""
    if isinstance(images, MappedImages):
        return images
    pixels = np.ascontiguousarray(images[:])
    pixels.tofile(path)
    return mapped(path, pixels.shape, np.arange(len(pixels)))


def _write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in checkpoint.tensors.items()}
    beside = folder / f"{CHECKPOINT}.part"
    beside.write_bytes(write_tensors(tensors))
    beside.replace(folder / CHECKPOINT)
    (folder / NOTE).write_text(json.dumps({"epoch": checkpoint.epoch, "facts": checkpoint.facts}))


def _read_checkpoint(folder: Path) -> Checkpoint:
    note = json.loads((folder / NOTE).read_text())
    return Checkpoint(note["epoch"], read_tensors((folder / CHECKPOINT).read_bytes()), note["facts"])


# --- in each process


class FolderKeeper:
    """Checkpoints in the run's folder; the worker takes them from there to object storage."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Checkpoint | None:
        return _read_checkpoint(self._folder) if (self._folder / NOTE).exists() else None

    def save(self, checkpoint: Checkpoint) -> None:
        _write_checkpoint(self._folder, checkpoint)
        _say({"saved": checkpoint.epoch})

    def clear(self) -> None:
        pass


def main(folder: Path) -> None:
    """One of the processes that torchrun starts."""
    rank, local, world = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    if cuda:
        torch.cuda.set_device(local)
    run, head = _load(folder, f"cuda:{local}" if cuda else "cpu", Shard(rank, world))
    history = fit(run, head)
    if rank == 0:
        (folder / BEST).write_bytes(net.dump(run.backbone))
        (folder / RESULT).write_text(json.dumps(history.to_json()))
    dist.barrier()
    dist.destroy_process_group()


def _load(folder: Path, device: str, shard: Shard) -> tuple[FineTune, Head | None]:
    job = json.loads((folder / JOB).read_text())
    record = BackboneRecord(**fields_of(BackboneRecord, job["backbone"]))
    backbone = net.load(record, (folder / WEIGHTS).read_bytes(), device=device)
    arrays = np.load(folder / ARRAYS)
    train, validation = (_part(job["images"][name], arrays, name) for name in ("train", "validation"))
    parts = Parts(train, validation, tuple(job["classes"]))
    head = load_head((folder / HEAD).read_bytes(), tuple(job["head"])) if job["head"] else None
    keeper: Keeper = FolderKeeper(folder)
    report: Report = _report if shard.rank == 0 else lambda *_: None
    run = FineTune(
        backbone, parts, Retrain(**job["policy"]), job["seed"], keeper, report, shard=shard, wrap=_wrapped(device),
        agree=_agreed, mean=_mean,
    )  # fmt: skip
    return run, head


def _part(described: Mapping[str, Any], arrays: Any, name: str) -> Part:
    images = mapped(Path(described["file"]), described["shape"], arrays[f"{name}_places"])
    return Part(images, arrays[f"{name}_targets"], arrays[f"{name}_weights"])


def _wrapped(device: str) -> Callable[[nn.Module], nn.Module]:
    def wrap(module: nn.Module) -> nn.Module:
        ids = [int(device.partition(":")[2])] if device.startswith("cuda") else None
        unused = any(not p.requires_grad for p in module.parameters())
        return DistributedDataParallel(module, device_ids=ids, find_unused_parameters=unused)

    return wrap


def _agreed(value: Any) -> Any:
    """What the first process found, in all of them: figures that differ in the last digit must not part their ways."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _mean(value: Tensor) -> Tensor:
    """Over all processes; the same to the last digit in each."""
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _report(stage: str, step: int, steps: int) -> None:
    _say({"report": [stage, step, steps]})


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
