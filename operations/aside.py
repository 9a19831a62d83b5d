"""The name that a person gave a file in, where it is written out: aside first, then renamed, so never a part of it."""

from __future__ import annotations

import os
from pathlib import Path

from labelloop.errors import SettingsError


def target_of(path: Path, example: str) -> Path:
    """The file itself, also behind links. SettingsError where a rename would replace what is no file.

    A device such as /dev/null would be gone for everybody on the machine.
    """
    if path.is_dir():
        raise SettingsError(f"{path} is a folder: name a file, e.g. {path / example}")
    if path.exists() and not path.is_file():
        raise SettingsError(f"{path} is a device or a pipe, and a file would replace it: name a file")
    return Path(os.path.realpath(path))


def aside_of(path: Path) -> Path:
    """Beside the file, so that renaming is one step; hidden until then."""
    return path.parent / f".{path.name}.{os.getpid()}.part"
