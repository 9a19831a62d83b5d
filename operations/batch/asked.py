"""What a person named in, the images out: files of this machine, or addresses in S3; never both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from labelloop.decoding.endings import SUFFIXES, no_image
from labelloop.errors import ImageUnreadableError, LabelloopError, SettingsError
from labelloop.images.reader import allowed, list_images
from labelloop.names import encodable
from labelloop.store.batches import Image
from operations.deployment import Deployment

S3 = "s3://"
LISTS = (".txt", ".lst", ".list")
MOST = 5_000_000  # images of one batch
LONGEST = 200_000_000  # bytes of a list


@dataclass(frozen=True, slots=True)
class Asked:
    """Where the images are. One of both is empty."""

    place: str
    files: tuple[Path, ...] = ()
    images: tuple[Image, ...] = ()
    left_out: int = 0  # files that are no images


def asked_for(what: str, deployment: Deployment | None) -> Asked:
    """A file, a folder, a list (one path or address a line) or ``s3://bucket/prefix``.

    SettingsError, ImageUnreadableError where it may not be read, StorageError. ``deployment``: None where there is no
    stack, and then nothing in S3 can be had.
    """
    if what.startswith(S3):
        return _under(what, _needed(deployment))
    path = Path(what)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise SettingsError(f"{what} is no file, no folder and no s3://bucket/prefix")
    if path.suffix.lower() not in LISTS:
        return Asked(what, files=(path,))
    return _listed(path, deployment)


def _folder(folder: Path) -> Asked:
    every = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    images = tuple(p for p in every if no_image(str(p), SUFFIXES) is None)
    if not images:
        raise SettingsError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    return Asked(str(folder), files=_bounded(images), left_out=len(every) - len(images))


def _under(place: str, deployment: Deployment) -> Asked:
    bucket = place.removeprefix(S3).partition("/")[0]
    _check(f"{S3}{bucket}/any", deployment)
    listing = list_images(deployment.s3, place)
    images = _bounded(tuple(listing))
    if not images:
        raise SettingsError(f"no images lie under {place}")
    return Asked(place, images=images, left_out=sum(out.count for out in listing.left_out.values()))


def _listed(path: Path, deployment: Deployment | None) -> Asked:
    if path.stat().st_size > LONGEST:
        raise SettingsError(f"{path} has more than {LONGEST / 1e6:.0f} MB: split the list")
    names = list(dict.fromkeys(_lines(path)))
    if not names:
        raise SettingsError(f"{path} lists nothing: one path or s3:// address a line")
    in_s3 = [name for name in names if name.startswith(S3)]
    if not in_s3:
        return Asked(str(path), files=_bounded(tuple(path.parent / name for name in names)))
    if len(in_s3) < len(names):
        other = next(name for name in names if not name.startswith(S3))
        raise SettingsError(f"{path} lists addresses in S3 and files such as {other}: make two lists")
    for uri in _bounded(tuple(in_s3)):
        _check(uri, _needed(deployment))
    return Asked(str(path.resolve()), images=tuple((uri, "") for uri in in_s3))


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no UTF-8 text: a list has one path or s3:// address a line") from error
    return (name for line in text.splitlines() if (name := line.strip()))


def _check(uri: str, deployment: Deployment) -> None:
    try:
        allowed(uri, deployment.settings.image_buckets)
    except ImageUnreadableError as error:
        raise SettingsError(str(error)) from error


def _needed(deployment: Deployment | None) -> Deployment:
    if deployment is None:
        raise LabelloopError("images in S3 are read by workers: leave --model out, and start the stack")
    return deployment


def _bounded(images: tuple) -> tuple:  # type: ignore[type-arg]
    if len(images) > MOST:
        raise SettingsError(f"{len(images):,} images are more than one batch takes ({MOST:,}): divide them")
    return images


def named(path: Path) -> str:
    """A file as it stands in the answer: its path, with what is no UTF-8 replaced."""
    return encodable(str(path))
