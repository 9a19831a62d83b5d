"""Where a network's weights came from in, the licence they came under out: what who passes a model on must know."""

from __future__ import annotations

from labelloop.config.networks import NETWORKS, wheel_of
from labelloop.model.net import OWN
from labelloop.records.versions import BackboneRecord

NONE_NEEDED = "none of others: the network began at random, or was built in"


def licence_of(first: BackboneRecord) -> str:
    """``first``: the network before it learned anything from this project's labels."""
    came_from = first.provenance
    if first.name in OWN or came_from.startswith("random start"):
        return NONE_NEEDED
    row = next((row for row in NETWORKS if row.name == first.name), None)
    if row and (wheel := wheel_of(first.name)) and wheel.file.rsplit("/", 1)[-1] in came_from:
        return f"{row.licence} ({came_from})"
    if came_from.startswith("hub ") and (listed := _of_timm(first.name)):
        return f"{listed}, as timm lists it ({came_from})"
    if row and came_from.startswith(f"file {first.name}."):
        return f"{row.licence}, going by the file's name ({came_from}): check with whoever you had it from"
    return f"not known ({came_from}): ask whoever you had them from"


def _of_timm(name: str) -> str | None:
    import timm

    config = timm.get_pretrained_cfg(name)
    return config.license if config is not None else None
