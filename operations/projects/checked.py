"""A project's config in, a refusal in words out: before anything is uploaded, and not hours later by a worker."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from labelloop.config.project import ProjectConfig
from labelloop.config.settings import Settings
from labelloop.errors import SettingsError
from labelloop.names import shown, unfit
from labelloop.rules.cron import cron_times

TITLE = (3, 50)  # characters that Label Studio takes


def check_title(title: str) -> None:
    """SettingsError where Label Studio would refuse the name of a new project, or S3 that of its folder."""
    fewest, most = TITLE
    if not fewest <= len(title.strip()) <= most:
        raise SettingsError(
            f"the project cannot be called {shown(title)}: Label Studio takes {fewest} to {most} characters, this name "
            f"has {len(title.strip())}. Write another `name:` into its config"
        )
    why = unfit(title) or ("a / parts it" if "/" in title else None)
    if why:
        raise SettingsError(f"the project cannot be called {shown(title)}: {why}. Give it another `name:`")


def check_classes(classes: Sequence[str]) -> None:
    """SettingsError where people could not choose one of these, or its name would come back as another."""
    for name in classes:
        if not name.strip() or name != name.strip() or unfit(name.replace("?", "").replace("/", "")):
            raise SettingsError(f"no class can be called {shown(name)}: use letters, digits and single spaces")
    twice = sorted({name for name in classes if list(classes).count(name) > 1})
    if twice:
        raise SettingsError(f"the class {shown(twice[0])} is listed twice: keep one")


def check_rules(config: ProjectConfig) -> None:
    """SettingsError where each setting is right by itself, and nothing could be learned by all of them."""
    if config.buckets.test + config.buckets.audit >= 1:
        raise SettingsError("buckets: test and audit leave no image to train on: keep their sum below 1, e.g. 0.10 and "
                            "0.05")  # fmt: skip
    if config.head.members == ():
        raise SettingsError("head.members is an empty list: name some, or leave it out")
    cron = config.retrain.cron
    if cron and (re.search(r"(?i)\bR\b", cron) or cron_times(cron, datetime.now(UTC)).next is None):
        raise SettingsError(
            f"retrain.cron: {shown(cron)} names no time that comes: `0 3 * * *` means every day at three (UTC)"
        )


def check_backbone(config: ProjectConfig, settings: Settings) -> None:
    """SettingsError where the network does not exist, its options do not fit, or its weights cannot be had."""
    from labelloop.model import net

    net.check(config.backbone, settings.weights_dirs, offline=settings.offline)
