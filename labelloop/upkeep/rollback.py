"""The deployment log in, the version that a rollback goes to out, and those that it skips: they cannot be read."""

from __future__ import annotations

from dataclasses import dataclass

from labelloop.errors import CorruptArtefactError, FormatError, NotFoundError
from labelloop.store.registry import Registry


@dataclass(frozen=True, slots=True)
class WayBack:
    """``version``: the newest intact one before the champion, or None; ``skipped``: (version, why), newest first."""

    version: str | None
    skipped: tuple[tuple[str, str], ...]


def intact_way_back(registry: Registry) -> WayBack:
    """Head and weights are read whole: a version that no backend can load is no way out."""
    skipped: list[tuple[str, str]] = []
    weights: dict[str, str] = {}  # backbone -> why its weights cannot be had; empty where they can
    for name in reversed(registry.way_back()[:-1]):
        why = _fault(registry, name, weights)
        if not why:
            return WayBack(name, tuple(skipped))
        skipped.append((name, why))
    return WayBack(None, tuple(skipped))


def _fault(registry: Registry, name: str, weights: dict[str, str]) -> str:
    try:
        version = registry.version(name)
        registry.head(version)
    except (CorruptArtefactError, FormatError, NotFoundError) as error:
        return str(error)
    if version.backbone not in weights:
        weights[version.backbone] = _fault_of_weights(registry, version.backbone)
    return weights[version.backbone]


def _fault_of_weights(registry: Registry, backbone: str) -> str:
    try:
        registry.backbone_weights(registry.backbone(backbone))
    except (CorruptArtefactError, FormatError, NotFoundError) as error:
        return str(error)
    return ""
