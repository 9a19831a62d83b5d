"""Label Studio itself: reachable, a release we know, our token alive, imports quick."""

from __future__ import annotations

from labelloop.errors import StudioError
from labelloop.studio.wiring import QUICK_IMPORT
from operations.doctor.checks import FIRST_S, DoctorCheck
from operations.doctor.finding import Finding, fine, warn, wrong
from operations.doctor.scene import Scene

AREA = "Label Studio"
REACHED, TOKEN = "Label Studio", "the token"
TRIED = "1.23"


def first(scene: Scene) -> list[DoctorCheck]:
    """What everything else here needs."""
    return [
        DoctorCheck(AREA, REACHED, lambda: reached(scene), limit_s=FIRST_S),
        DoctorCheck(AREA, TOKEN, lambda: token(scene), limit_s=FIRST_S),
    ]


def checks(scene: Scene) -> list[DoctorCheck]:
    """The others."""
    needs = (REACHED, TOKEN, "the state bucket")  # which names the project to try with
    return [DoctorCheck(AREA, "quick import", lambda: import_speed(_imports_quickly(scene)), needs)]


def reached(scene: Scene) -> Finding:
    """Whether it answers, and which release it is."""
    try:
        return release(scene.studio.version(), scene.studio.url)
    except StudioError as error:
        if error.status == 401:
            return fine(REACHED, f"answers at {scene.studio.url}")
        return wrong(REACHED, str(error), f"see that it runs at {scene.studio.url} and can be reached from here")


def release(version: str, url: str) -> Finding:
    """Ours is tried with one release; others mostly work."""
    if version.startswith(f"{TRIED}."):
        return fine(REACHED, f"{version} at {url}")
    return warn(REACHED, f"{version} at {url}: labelloop is tried with {TRIED}", f"use Label Studio {TRIED}, or watch "
                "the first labels closely")  # fmt: skip


def token(scene: Scene) -> Finding:
    """Which account we act under; a dead token stops everything."""
    kind = scene.studio.http.token_kind
    if not scene.settings.studio_token:
        return wrong(TOKEN, "LABELLOOP_STUDIO_TOKEN is not set", "create a token in Label Studio (Account & Settings) "
                     "and put it there")  # fmt: skip
    try:
        return fine(TOKEN, f"a {kind} token of {scene.studio.whoami()}")
    except StudioError as error:
        if error.status != 401:
            return wrong(TOKEN, f"cannot be tried: {error}", "see that Label Studio answers")
        return wrong(TOKEN, f"Label Studio does not accept our {kind} token", _way_out(str(error), kind))


def import_speed(quick: bool | None) -> Finding:
    """Without it every push of predictions recounts the whole project."""
    what = "quick import"
    if quick:
        return fine(what, "predictions are imported without recounting the project")
    if quick is None:
        return fine(what, "not known on this release")
    return warn(what, "every push of predictions recounts the whole project: seconds with 10,000 tasks, minutes with "
                "100,000", f"start Label Studio with {QUICK_IMPORT}=true")  # fmt: skip


def _imports_quickly(scene: Scene) -> bool | None:
    records = scene.records()
    return scene.wiring.imports_quickly(records[0].id) if records else None


def _way_out(reason: str, kind: str) -> str:
    if "legacy tokens" in reason:
        return (
            "allow legacy tokens under Organization > Access Token Settings, or create a personal access token under "
            "Account & Settings and put it into LABELLOOP_STUDIO_TOKEN (or its file: then no restart is needed)"
        )
    page = "Personal Access Token" if kind == "personal" else "Personal or Legacy Token"
    return (
        f"copy a valid one from Account & Settings > {page} into LABELLOOP_STUDIO_TOKEN (or its file: then no restart "
        "is needed)"
    )
