"""One project as Label Studio has it: shown in our order, without anything that makes people wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from labelloop.errors import StudioError
from labelloop.records.versions import COLD_START
from labelloop.store.projects import ProjectRecord
from labelloop.studio.client import StudioProject
from labelloop.studio.wiring import ConnectedBackend, Webhook
from operations.doctor import order, studio
from operations.doctor.checks import DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.scene import Scene

SAMPLING = "Uncertainty sampling"  # Label Studio's name for "lowest score first"
TITLE = "labelloop"  # of the backend; never the name of a version: docs/adr/0006
SETTLE_S = 4.0  # a deploy reaches Label Studio a moment after the log
INIT = "run `labelloop init` for the project again"


def checks(scene: Scene, record: ProjectRecord) -> list[DoctorCheck]:
    """All of one project's."""
    area, needs = area_of(record), (studio.REACHED, studio.TOKEN)

    def of(what: str, judge: Callable[[StudioProject], Finding]) -> DoctorCheck:
        return DoctorCheck(area, what, lambda: judge(scene.project(record)), needs)

    return [
        DoctorCheck(area, "project", lambda: exists(scene, record), needs),
        DoctorCheck(area, "model version", lambda: version_shown(scene, record), needs),
        of("queue order", sampling),
        of("training inside submit", trains),
        of("predictions on opening", predicts),
        of("pre-labels", shows),
        of("overlap", overlap),
        DoctorCheck(area, "order followed", lambda: order.followed(order.answers(scene, record)), needs),
        DoctorCheck(area, "webhooks", lambda: webhooks(scene.webhooks(record), scene.settings.backend_url), needs),
        DoctorCheck(area, "image bucket", lambda: bucket(record, scene.settings.image_buckets)),
    ]


def area_of(record: ProjectRecord) -> str:
    """The heading of one project's findings."""
    return f"project {record.title}"


def exists(scene: Scene, record: ProjectRecord) -> Finding:
    """The very project that was wired, not another one with its number."""
    forget = f"if it is gone for good: `labelloop forget {record.key}`"
    try:
        project = scene.project(record)
    except StudioError as error:
        if error.status not in {403, 404}:
            raise
        return wrong("project", f"Label Studio shows our account no project {record.id}", "let the account see it "
                     f"(Organization > Members); {forget}")  # fmt: skip
    if project.created != record.created:
        return wrong("project", f"project {record.id} is not the one that was wired: Label Studio's database was "
                                f"recreated", f"`labelloop forget {record.key}`, then `labelloop init`")  # fmt: skip
    return fine("project", f"{project.title} ({record.key})")


def version_shown(scene: Scene, record: ProjectRecord) -> Finding:
    """Looked at twice where it does not fit: a deploy may be under way."""
    backends = scene.backends(record)
    finding = version_fits(scene.project(record).model_version, scene.shown(record), backends)
    if finding.ok:
        return finding
    time.sleep(SETTLE_S)
    live = scene.registry(record).live()
    return version_fits(
        scene.studio.project(record.id).model_version, live.version if live else COLD_START, backends
    )  # fmt: skip


def version_fits(shown: str | None, live: str, backends: Sequence[ConnectedBackend]) -> Finding:
    """Label Studio orders by one version's predictions; where there are none, the order is random without a word."""
    what, remedy = "model version", "see that sync runs: it sets the version back within seconds"
    if shown == live:
        return fine(what, f"{shown}, as in the registry")
    if not shown:
        return wrong(what, f"none is set, so tasks come in random order; champion is {live}", remedy)
    if shown in {b.title for b in backends}:
        return wrong(what, f"is the backend's title {shown!r}, which no prediction has: tasks come in random order; "
                     f"champion is {live}", remedy)  # fmt: skip
    return wrong(what, f"Label Studio goes by {shown}, champion is {live}", remedy)


def sampling(project: StudioProject) -> Finding:
    """How Label Studio picks the next task."""
    if project.sampling == SAMPLING:
        return fine("queue order", "lowest score first")
    return wrong("queue order", f"is {project.sampling!r}: the model's order is not used", f"{INIT}, or set Task "
                 "Sampling to 'Uncertainty Sampling' in the project's settings")  # fmt: skip


def trains(project: StudioProject) -> Finding:
    """Label Studio would call the backend inside the person's submit, and wait up to 100 s."""
    what = "training inside submit"
    if not project.trains_on_submit:
        return fine(what, "off")
    return wrong(what, "on: every submit waits for the backend", "turn 'Start model training on annotation submission' "
                 "off under Settings > Model: the watcher starts training by itself")  # fmt: skip


def predicts(project: StudioProject) -> Finding:
    """It asks the backend for tasks that were pushed already."""
    what = "predictions on opening"
    if not project.predicts_by_itself:
        return fine(what, "only where none is stored")
    return warn(what, "evaluate_predictions_automatically is on: opening a task waits for the backend", "turn it off: "
                "predictions are pushed ahead")  # fmt: skip


def shows(project: StudioProject) -> Finding:
    """People see nothing of the model otherwise."""
    if project.shows_predictions:
        return fine("pre-labels", "shown to people")
    return wrong("pre-labels", "are not shown to people", "turn 'Use predictions to prelabel tasks' on under Settings "
                 "> Annotation")  # fmt: skip


def overlap(project: StudioProject) -> Finding:
    """Allowed; a person who sees it should know what becomes of it."""
    n = project.maximum_annotations
    if n == 1:
        return fine("overlap", "one annotation per task")
    return fine("overlap", f"{n} annotations per task: all are kept; a ground truth counts, else what "
                "`answers.resolve` of the config says; tasks begun come first, in random order")  # fmt: skip


def webhooks(hooks: Sequence[Webhook], backend_url: str) -> Finding:
    """Each is called inside the person's submit, one after the other, up to a second long."""
    url = f"{backend_url}/webhook"
    active = [hook for hook in hooks if hook.active]
    ours = [hook for hook in active if hook.url == url]
    others = [hook.url for hook in active if hook.url != url]
    if len(ours) > 1:
        return wrong("webhooks", f"{len(ours)} of ours: every submit waits for each", "delete all but one under "
                     "Settings > Webhooks")  # fmt: skip
    if others:
        return warn("webhooks", f"besides ours {', '.join(others)}: every submit waits for each, up to a second",
                    "remove unneeded ones (Settings > Webhooks)")  # fmt: skip
    if not ours:
        idle = "ours is not active" if any(hook.url == url for hook in hooks) else f"none to {url}"
        return warn("webhooks", f"{idle}: labels are found by polling, a second or two later", "add or activate it "
                    "under Settings > Webhooks, for all events")  # fmt: skip
    if not (ours[0].payload and ours[0].all_events):
        return warn("webhooks", "ours gets no payload, or not every event: labels are found by polling",
                    "let it send the payload for all events")  # fmt: skip
    return fine("webhooks", f"one, to {url}")


def bucket(record: ProjectRecord, allowed: Sequence[str]) -> Finding:
    """Nothing is fetched from anywhere else."""
    name = record.image_uri.removeprefix("s3://").partition("/")[0]
    if name in allowed:
        return fine("image bucket", record.image_uri)
    return wrong("image bucket", f"{record.image_uri} is in no allowed bucket ({', '.join(allowed)})", f"add {name} to "
                 "LABELLOOP_IMAGE_BUCKETS of every service")  # fmt: skip
