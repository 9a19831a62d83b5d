"""A worker beside a newer watcher."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from retrain_worker import jobs


def test_an_argument_that_only_a_newer_watcher_knows_is_left_out_and_told() -> None:
    def work(project: str, uris: list[str], wish: str = "") -> dict[str, Any]:
        return {"project": project, "uris": uris, "wish": wish}

    with capture_logs() as logs:
        passed = jobs._of_a_known_project(work)("p", uris=["a"], wish="w", hint={"of": "tomorrow"}, more=1)
    assert passed == {"project": "p", "uris": ["a"], "wish": "w"}
    assert [(line["action"], line["left_out"]) for line in logs] == [("newer", ["hint", "more"])]


@pytest.mark.parametrize("name", ["featurise", "tidy", "refresh", "retrain", "trial", "lr_find", "score"])
def test_every_job_stands_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the project is looked for before arguments are right: a lacking one is still refused."""
    monkeypatch.setattr(jobs, "_is_known", lambda _project: True)
    with pytest.raises(TypeError, match="missing") if name != "tidy" else pytest.raises(RuntimeError):
        monkeypatch.setattr(jobs, "context", _away)
        getattr(jobs, name)("p", of_tomorrow=1)


def _away() -> Any:
    raise RuntimeError("no context here")
