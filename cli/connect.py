"""Which deployment a command speaks to: the embedded stack of a state directory, or the environment's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedded.loop import loop_environment
from embedded.state import StackState, running_stack
from labelloop.config.settings import Settings, child_environment, load_settings
from labelloop.errors import SettingsError
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.queue.connection import redis_client
from labelloop.queue.jobs import JobQueue
from labelloop.store.projects import ProjectStore
from operations.deployment import Deployment

if TYPE_CHECKING:
    pass


def open_deployment(state_dir: Path) -> Deployment:
    """The stack that runs on ``state_dir``, else what ``LABELLOOP_*`` names; SettingsError where neither is."""
    stack = running_stack(state_dir)
    environ = child_environment()
    if stack:
        return deployment_of(stack)
    if "LABELLOOP_STUDIO_URL" not in environ:
        raise SettingsError(
            f"no stack runs on {state_dir}, and LABELLOOP_STUDIO_URL is not set: start one with `labelloop up`, give "
            "its --state-dir, or set the LABELLOOP_* variables of your deployment (.env.example lists them)"
        )
    return _build(load_settings(environ), None)


def deployment_of(stack: StackState) -> Deployment:
    """The embedded stack's."""
    return _build(load_settings({**child_environment(), **loop_environment(stack)}), stack)


def _build(settings: Settings, stack: StackState | None) -> Deployment:
    s3 = s3_client(settings)
    store = S3Store(s3, settings.state_bucket)
    projects = ProjectStore(store, settings.studio_server)
    return Deployment(settings, s3, store, JobQueue(redis_client(settings)), projects, stack)
