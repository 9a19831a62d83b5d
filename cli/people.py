"""Account ids in, names a person knows out; numbers where Label Studio is away, since history must be readable then."""

from __future__ import annotations

from collections.abc import Mapping

from cli.deployment import Deployment
from labelloop.errors import LabelloopError


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
