"""Account ids in, names a person knows out; numbers where Label Studio is away, since history must be readable then."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from typing import TYPE_CHECKING

from labelloop.errors import LabelloopError

if TYPE_CHECKING:
    from operations.deployment import Deployment


def people(deployment: Deployment) -> Mapping[int, str]:
    """Account id -> e-mail; empty where Label Studio does not answer."""
    try:
        return deployment.studio.people()
    except LabelloopError:
        return {}


def who(account: int | None, names: Mapping[int, str]) -> str:
    """One account, in words."""
    if account is None:
        return "unknown"
    return names.get(account, f"account {account}")


def me() -> str:
    """Who runs the command, for the log of decisions."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
