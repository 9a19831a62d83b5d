"""An answer and what is known of images in; since when its image is another one than its author saw, out. Pure.

Times are compared, not bytes: Label Studio does not say what a browser was shown. Bytes stand in a file from the moment
they were first read there, which is a little later than they came: an answer in between is set aside, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from labelloop.clock import LABEL_STUDIO_FORMAT, parse
from labelloop.records.images import ImageFacts
from labelloop.records.tasks import Annotation

AT_ONCE = timedelta(seconds=5)  # within which Label Studio has written a new answer


def outdated(images: Mapping[str, ImageFacts], uri: str, answer: Annotation) -> str | None:
    """When other bytes were found; None where the author saw what stands there now, or where nobody can tell."""
    facts = images.get(uri)
    if facts is None or answer.cancelled:
        return None
    if answer.of and _differ(images.get(answer.of), facts):
        return answer.updated_at
    return facts.changed_after(_looked(answer)) if facts.earlier else None


def _differ(before: ImageFacts | None, facts: ImageFacts) -> bool:
    return bool(before and before.sha256 and facts.sha256 and before.sha256 != facts.sha256)


def _looked(answer: Annotation) -> str:
    """When the author had the image before them: a page may have been open for long before the submit."""
    created, updated = parse(answer.created_at), parse(answer.updated_at)
    if updated - created <= AT_ONCE:
        updated = created - timedelta(seconds=answer.lead_time_s or 0.0)
    return updated.strftime(LABEL_STUDIO_FORMAT)
