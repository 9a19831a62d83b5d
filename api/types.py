"""What the API takes and gives, beside `/v1/classify`; its document is made from these."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from labelloop.queue.jobs import JobState
from operations.status import ProjectStatus, Service

PROJECT = r"^[A-Za-z0-9]+-[0-9]+-[0-9]+$"
VERSION = r"^v[0-9]{1,9}$"
ProjectKey = Annotated[str, Field(pattern=PROJECT, max_length=100, description="A project's key, from /v1/projects.")]
Why = Annotated[str, Field(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*$",
                           description="A reason; the deployment log keeps it.")]  # fmt: skip


class ProjectPath(BaseModel):
    """In the path."""

    project: ProjectKey


class ModelsQuery(BaseModel):
    """In the query."""

    model_config = ConfigDict(extra="forbid")

    project: ProjectKey
    limit: int = Field(default=50, ge=1, le=1000, description="So many of the newest.")


class Empty(BaseModel):
    """In the query of calls that take nothing there."""

    model_config = ConfigDict(extra="forbid")


class Decision(BaseModel):
    """A version, and why."""

    model_config = ConfigDict(extra="forbid", title="Decision")

    version: str = Field(pattern=VERSION, description="From /v1/models.", examples=["v17"])
    why: Why = "by the API"


class Reason(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid", title="Reason")

    why: Why = "by the API"


class ProjectOut(BaseModel):
    """One project."""

    key: str
    title: str
    classes: list[str]
    champion: str | None = Field(description="The version that answers; null before the first.")


class ProjectsOut(BaseModel):
    """The projects that the key is for."""

    model_config = ConfigDict(title="Projects")

    projects: list[ProjectOut]


class ModelOut(BaseModel):
    """One version with its evidence."""

    name: str
    kind: str = Field(description="refresh (a new head) or retrain (the network, too).")
    state: str = Field(description="live, promote, hold, reject, waits for approval, …")
    made: str
    backbone: str
    classes: list[str]
    labels: int = Field(description="It was trained on so many.")
    accuracy: float | None = Field(description="Out of fold, on the train labels.")
    test_accuracy: float | None = Field(description="On the test labels.")
    test_labels: int
    verdict: str
    reasons: list[str]


class ModelsOut(BaseModel):
    """Newest first."""

    model_config = ConfigDict(title="Models")

    project: str
    champion: str | None
    models: list[ModelOut]


class StatusOut(BaseModel):
    """The loop of one project at one moment, as `labelloop status --json` has it."""

    model_config = ConfigDict(title="Status")

    at: str
    services: list[Service]
    queue: dict[str, int]
    jobs: list[JobState]
    project: ProjectStatus


class RetrainOut(BaseModel):
    """A wish for a retrain. The watcher queues it."""

    model_config = ConfigDict(title="Retrain")

    request: str = Field(description="The wish; it is open until a run has answered it.")
    new: bool = Field(description="False: one was open already, and this is that.")


class DecidedOut(BaseModel):
    """How it went."""

    model_config = ConfigDict(title="Decided")

    champion: str = Field(description="The champion now.")
    previous: str | None = Field(description="The champion before.")
    changed: bool
    skipped: list[str] = Field(default=[], description="Versions that a rollback skipped, and why.")
    note: str | None = Field(default=None, description="A hint, e.g. that learning is paused.")


def json_of(answer: BaseModel) -> Any:
    """As it is sent."""
    return answer.model_dump_json()
