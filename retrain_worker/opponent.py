"""Against which version a new network is judged: the champion, or where its head cannot be read one before it."""

from __future__ import annotations

from contextlib import suppress

from labelloop.errors import NotFoundError
from labelloop.objects.damage import UNREADABLE
from labelloop.records.versions import Version
from retrain_worker.context import ProjectContext
from retrain_worker.refresh import head_of


def opponent_of(project: ProjectContext, champion: Version | None) -> Version | None:
    """The champion, else the newest version that was live before it and has a head; None where there is none."""
    for name in reversed(project.registry.way_back()):
        with suppress(*UNREADABLE, NotFoundError):
            version = champion if champion and champion.name == name else project.registry.version(name)
            if head_of(project, version) is not None:
                return version
    return None


def instead_words(champion: Version | None, opponent: Version | None) -> str:
    """A reason of the verdict: what else it rests on."""
    live = champion.name if champion else "the champion"
    return f"the head of {live} cannot be read: judged against {opponent.name if opponent else 'none'} instead"
