"""One tar file of plain objects with a manifest of their hashes: written aside and renamed, read with distrust."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from labelloop.errors import CorruptArtefactError, SettingsError
from labelloop.objects.formats import Kind, read, write
from labelloop.records.json import digest
from operations.aside import aside_of, target_of

MANIFEST = "manifest.json"
LARGEST = 8 << 30  # bytes of one member: larger than the weights of any network that is served
LARGEST_MANIFEST = 1 << 30
MOST = 20_000_000  # members
CHUNK = 1 << 20
_NAME = re.compile(r"(?:state|studio|images)/[^\0]+|project\.json|manifest\.json")
Report = Callable[[str, int, int], None]  # what, done, of


class ArchiveWriter:
    """The file appears under its name when the block ends well, whole; else it does not."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._target = target_of(path, "backup.tar")
        self._aside = aside_of(self._target)
        self._members: dict[str, tuple[int, str]] = {}

    def __enter__(self) -> ArchiveWriter:
        try:
            descriptor = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)  # it holds people's e-mails
        except OSError as error:
            raise SettingsError(f"cannot write {self._path}: {error.strerror}; choose another --out") from error
        self._file = os.fdopen(descriptor, "wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)
        return self

    def add(self, name: str, data: bytes) -> None:
        """One member; its name must be new."""
        if name in self._members:
            raise ValueError(f"{name} is in the archive already")
        self._put(name, data)
        self._members[name] = (len(data), digest(data))

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the manifest, the last member, with these facts."""
        objects = [[name, size, sha] for name, (size, sha) in self._members.items()]
        self._put(MANIFEST, write(Kind.BACKUP, {**facts, "objects": objects}))

    def _put(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o600
        try:
            self._tar.addfile(info, BytesIO(data))
        except OSError as error:
            raise SettingsError(f"cannot write {self._path}: {error.strerror}; is the disk full?") from error

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._tar.close()
                self._file.flush()
                os.fsync(self._file.fileno())
                self._aside.replace(self._target)
        except OSError as error:
            raise SettingsError(f"cannot write {self._path}: {error.strerror}; is the disk full?") from error
        finally:
            with suppress(OSError):  # what was not written yet does not matter any more
                self._file.close()
            with suppress(OSError):
                self._aside.unlink(missing_ok=True)


class ArchiveReader:
    """A file that may have been damaged, or made by somebody else: nothing of it is ever written to disk by its name.

    CorruptArtefactError says what is wrong with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: IO[bytes] = path.open("rb")
        except OSError as error:
            raise SettingsError(f"cannot read {path}: {error.strerror}") from error
        try:
            self._members = self._look()
            self.facts = self._manifest()
        except BaseException:
            self.close()
            raise
        self._objects: dict[str, tuple[int, str]] = {n: (s, h) for n, s, h in self.facts.pop("objects")}

    def names(self, prefix: str = "") -> list[str]:
        """Members by name, the manifest left out."""
        return [name for name in self._objects if name.startswith(prefix)]

    def get(self, name: str) -> bytes:
        """One member, its hash verified."""
        if name not in self._objects:
            raise CorruptArtefactError(f"{self._path} holds no {name}: was it made by `labelloop backup`?")
        data = self._read(name)
        size, sha = self._objects[name]
        if len(data) != size or digest(data) != sha:
            raise self._damaged(f"{name} does not have the hash that was recorded")
        return data

    def size(self, name: str) -> int:
        """Of one member, in bytes."""
        return self._objects[name][0]

    def verify(self, report: Report) -> None:
        """Every hash, before anything is done with any of it."""
        lacking = set(self._objects) - set(self._members)
        if lacking:
            raise self._damaged(f"{len(lacking)} objects are missing, e.g. {min(lacking)}")
        foreign = set(self._members) - set(self._objects) - {MANIFEST}
        if foreign:
            raise self._damaged(f"{min(foreign)} is not in its manifest")
        for done, (name, (size, sha)) in enumerate(self._objects.items(), 1):
            if self._members[name].size != size or self._hash(name) != sha:
                raise self._damaged(f"{name} does not have the hash that was recorded")
            report("verify the backup", done, len(self._objects))

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _look(self) -> dict[str, tarfile.TarInfo]:
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:  # no compression: what is read was there
                return {info.name: info for info in self._checked(tar)}
        except (tarfile.TarError, ValueError, ArithmeticError, LookupError, EOFError, RecursionError) as error:
            raise self._damaged(f"it is no tar file, or is cut off ({error})") from error

    def _checked(self, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        names: set[str] = set()
        for info in tar:
            plain = info.type in {tarfile.REGTYPE, tarfile.AREGTYPE} and not info.issparse()
            if not plain or not is_safe(info.name):
                raise self._damaged(f"{info.name[:200]!r} is no plain object of a backup")
            if not 0 <= info.size <= LARGEST or info.name in names or len(names) >= MOST:
                raise self._damaged(f"{info.name[:200]!r} is too large, or there twice")
            names.add(info.name)
            yield info

    def _manifest(self) -> dict[str, Any]:
        if MANIFEST not in self._members or self._members[MANIFEST].size > LARGEST_MANIFEST:
            raise self._damaged("it has no manifest: it is cut off, or was not made by `labelloop backup`")
        try:
            manifest = read(Kind.BACKUP, self._read(MANIFEST))
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damaged(f"its manifest cannot be read ({error})") from error
        objects, count = manifest.get("objects"), manifest.get("tasks", 0)
        if isinstance(objects, list) and all(map(_is_row, objects)) and isinstance(count, int):
            return manifest
        raise self._damaged("its manifest does not list objects as a backup does")

    def _read(self, name: str) -> bytes:
        return b"".join(self._parts(name))

    def _hash(self, name: str) -> str:
        sha256 = hashlib.sha256()
        for part in self._parts(name):
            sha256.update(part)
        return sha256.hexdigest()

    def _parts(self, name: str) -> Iterator[bytes]:
        info = self._members[name]
        self._file.seek(info.offset_data)
        left = info.size
        while left > 0:
            part = self._file.read(min(CHUNK, left))
            if not part:
                raise self._damaged(f"it is cut off within {name}")
            left -= len(part)
            yield part

    def _damaged(self, what: str) -> CorruptArtefactError:
        return CorruptArtefactError(f"{self._path} is damaged: {what}. Nothing was restored")


def _is_row(row: Any) -> bool:
    """A name, its size, its hash."""
    if not isinstance(row, list) or [type(part) for part in row] != [str, int, str]:
        return False
    return is_safe(row[0])


def is_safe(name: str) -> bool:
    """A name that leads nowhere else, whatever it is joined to."""
    parts = name.split("/")
    return bool(_NAME.fullmatch(name)) and "\\" not in name and not {"", ".", ".."}.intersection(parts)
