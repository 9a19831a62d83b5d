"""The environment: variables that are misspelt, missing, or contradict each other."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from urllib.parse import urlsplit

from embedded.loop import loop_environment
from labelloop.config.settings import LOG_FORMS, Settings, known_variables, our_variables
from labelloop.errors import SettingsError
from operations.doctor.checks import DoctorCheck
from operations.doctor.finding import Finding, Level, fine, warn, wrong
from operations.doctor.scene import Scene

AREA = "settings"
LOOPBACK = {"127.0.0.1", "localhost", "::1", "0.0.0.0"}  # noqa: S104 - a name to look for, not to listen on


def checks(scene: Scene) -> list[DoctorCheck]:
    """All of this area; they ask no server."""
    settings = scene.settings
    stack, ours = scene.deployment.stack, our_variables()
    variables = {} if stack else ours  # the embedded stack sets its own
    own = [DoctorCheck(AREA, "the stack's own", lambda: overruled(ours, loop_environment(stack)))] if stack else []
    return [
        *own,
        DoctorCheck(AREA, "variables", lambda: names(variables)),
        DoctorCheck(AREA, "values and files", lambda: doubles(variables)),
        DoctorCheck(AREA, "log form", lambda: log_form(variables)),
        DoctorCheck(AREA, "backend password", lambda: backend_password(settings)),
        DoctorCheck(AREA, "Redis password", lambda: redis_password(settings)),
        DoctorCheck(AREA, "buckets", lambda: buckets(settings)),
        DoctorCheck(AREA, "addresses", lambda: addresses(settings)),
    ]


def unreadable(error: SettingsError) -> list[Finding]:
    """Settings that cannot be used at all, with what may be the reason."""
    variables = our_variables()
    near = [finding for finding in (names(variables), doubles(variables)) if finding.level is not Level.OK]
    return [wrong("settings", str(error), "docs/configuration.md explains every variable"), *near]


def names(variables: Mapping[str, str]) -> Finding:
    """A misspelt variable is silently another one's default."""
    known = known_variables()
    strange = sorted(name for name in variables if name not in known)
    if not strange:
        return fine("variables", f"{len(variables)} set, all known" if variables else "set by the embedded stack")
    near = [difflib.get_close_matches(name, known, 1) for name in strange]
    hints = [f"{name} (did you mean {n[0]}?)" if n else name for name, n in zip(strange, near, strict=True)]
    return warn("variables", f"not known: {', '.join(hints)}", "correct or remove it; docs/configuration.md lists all")


def overruled(variables: Mapping[str, str], stacks: Mapping[str, str]) -> Finding:
    """What is set here for another deployment does not count for the stack; said before somebody wonders."""
    what = "the stack's own"
    others = {name.removesuffix("_FILE") for name, value in variables.items() if stacks.get(name) != value}
    names = sorted(others & stacks.keys())
    if names:
        return wrong(what, f"{', '.join(names)} is set in this shell, but not to the value of the stack, which takes "
                     "its own", "unset it, or `labelloop down` to use the other deployment")  # fmt: skip
    return fine(what, "nothing in this shell contradicts it")


def doubles(variables: Mapping[str, str]) -> Finding:
    """A value and a file: the file counts, which may surprise."""
    both = sorted(name for name in variables if f"{name}_FILE" in variables)
    if both:
        return warn("values and files", f"{', '.join(both)} is set as a value and as a file; the file counts",
                    "keep one of the two")  # fmt: skip
    return fine("values and files", "no variable is set twice")


def log_form(variables: Mapping[str, str]) -> Finding:
    """Anything but json is text."""
    value = variables.get("LABELLOOP_LOG", LOG_FORMS[0])
    if value in LOG_FORMS:
        return fine("log form", value)
    return warn("log form", f"LABELLOOP_LOG is {value!r}, taken as text", f"set it to {' or '.join(LOG_FORMS)}")


def backend_password(settings: Settings) -> Finding:
    """Without one everybody who reaches the backend may ask it."""
    if not settings.backend_passwords:
        return warn("backend password", "LABELLOOP_BACKEND_PASSWORD is not set: everybody may get predictions",
                    "set it for the backend and here, then run `labelloop rotate`")  # fmt: skip
    former = len(settings.former_backend_passwords)
    if former:
        return warn("backend password", f"{former} former one still counts", "run `labelloop rotate`, then "
            "delete it from the file")  # fmt: skip
    return fine("backend password", "set")


def redis_password(settings: Settings) -> Finding:
    """Anyone who reaches the queue can make workers do things."""
    parts = urlsplit(settings.redis_url)
    if parts.password or parts.hostname in LOOPBACK:
        return fine("Redis password", "set" if parts.password else "none, on the loopback address")
    return warn("Redis password", f"none for {parts.hostname}", "give Redis a password (requirepass) and put it into "
                "LABELLOOP_REDIS_URL: redis://:PASSWORD@HOST:6379/0")  # fmt: skip


def buckets(settings: Settings) -> Finding:
    """Our own state among the images would be offered to people."""
    if settings.state_bucket in settings.image_buckets:
        return warn("buckets", f"{settings.state_bucket} is the state bucket and an image bucket, too",
                    "keep images in a bucket of their own")  # fmt: skip
    return fine("buckets", f"state in {settings.state_bucket}, images in {', '.join(settings.image_buckets)}")


def addresses(settings: Settings) -> Finding:
    """A loopback address means another machine for Label Studio than for us, where Label Studio lives elsewhere."""
    if _local(settings.studio_url):
        return fine("addresses", "Label Studio is on this machine")
    named = {"LABELLOOP_BACKEND_URL": settings.backend_url, "LABELLOOP_S3_ENDPOINT": settings.s3_endpoint}
    local = [name for name, url in named.items() if url and _local(url)]
    if local:
        return wrong("addresses", f"{' and '.join(local)} is a loopback address, but Label Studio is at "
                     f"{settings.studio_url} and would look on its own machine", "give the address under which Label "
                     "Studio reaches it")  # fmt: skip
    return fine("addresses", "each can mean the same to Label Studio and to us")


def _local(url: str) -> bool:
    return urlsplit(url).hostname in LOOPBACK
