"""An object's key in, what is done without it and what a person can do out. Pure."""

from __future__ import annotations

import re

UPGRADE = "it was written by a newer labelloop: upgrade this process"
BACKUP = "or restore it with `labelloop restore`"
_REMEDIES = (  # the first that fits: what is done without it, and what a person can do
    (r"index/.*|copies/record\..*", "its copy is used if intact; otherwise run `labelloop init --config` again"),
    (r"keys/.*", "the API key lets nobody in: `labelloop keys remove` deletes it, `labelloop keys add` makes another"),
    (r"deployments/.*",
     f"the newest intact entry counts: if it is wrong, `labelloop promote` another version, {BACKUP}"),
    (r"models/versions/.*|models/heads/.*",
     f"the version before it serves; the next refresh replaces it, `labelloop rollback` goes back, {BACKUP}"),
    (r"backbones/initial\.json", "the oldest backbone that was not fine-tuned counts; nothing to do"),
    (r"backbones/[^/]+/weights\..*",
     "a network that was not fine-tuned is written again by the next job that runs it; of a fine-tuned one: `labelloop "
     f"rollback` goes to a version on another network, `labelloop retrain` makes another, {BACKUP}"),
    (r"backbones/.*", f"`labelloop rollback` to a version on another backbone, {BACKUP}"),
    (r"catalogue/.*|copies/catalogue/.*",
     f"its copy is used where that is intact; else its images neither train nor judge: {BACKUP.removeprefix('or ')}"),
    (r"task-groups/.*", "its new images wait for a bucket until it is written again from Label Studio; nothing to do"),
    (r"features/.*", "the features are recomputed automatically; nothing to do"),
    (r"mirror/.*", "the images are copied again automatically; nothing to do"),
    (r"snapshots/.*", "it is written again from Label Studio's answers; nothing to do"),
    (r"runs/.*", "the run does not count; nothing to do"),
    (r"requests/.*", "retry with `labelloop retrain` or `labelloop queue retry`, then `labelloop gc --damaged`"),
    (r"configs/.*", "the current one is written again by the next run; of an older one its versions lose their config"),
    (r"scores/.*", "the previous order is shown until a new one is computed; nothing to do"),
    (r"paused\.json", "learning stays paused: `labelloop resume` ends it"),
    (r"studies/.*/trials/.*", "the trial is run again; nothing to do"),
    (r"studies/.*", "its search has stopped: start it again with `labelloop tune`"),
    (r"auto-labels/.*", "it still counts as a look at the audit labels: recompute it with `labelloop auto-label`"),
    (r"curve\.json", "recompute it with `labelloop curve --anew`"),
    (r"reports/.*", "recompute it with `labelloop report --anew`"),
    (r"batches/.*", "run the same `labelloop predict` again"),
    (r"lr_curves/.*", "recompute it with `labelloop tune lr`"),
    (r"gc\.json", "the project is cleaned up again within a day; nothing to do"),
    (r"names\.json|copies/names\..*", "its copy is used; if that is lost, too, upload the folder again with "
     "`labelloop init --images`: exports need it for `file`"),
    (r"deleted\.json|copies/deleted\..*", "its copy is used, else images without a task count as removed"),
)  # fmt: skip


def remedy_of(key: str) -> str:
    """By an object's key within its project (or ``index/...``)."""
    return known_remedy(key) or BACKUP.removeprefix("or ")


def known_remedy(key: str) -> str:
    """The same; empty where the key is of no kind that is kept."""
    return next((text for pattern, text in _REMEDIES if re.fullmatch(pattern, key)), "")
