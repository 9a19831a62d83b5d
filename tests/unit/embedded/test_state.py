"""What the embedded stack remembers and hides."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embedded.loop import loop_environment, loop_services
from embedded.ports import LOOPBACK
from embedded.process import ServiceState, ServiceStatus
from embedded.progress import StackProgress, read_progress, write_progress
from embedded.services import ServicePlace, copy_database, valkey_config
from embedded.state import (
    RunningProcess,
    Secrets,
    StackState,
    load_state,
    locked,
    open_state,
    running_stack,
    save_state,
    start_time,
)
from labelloop.config.project import ProjectConfig
from labelloop.config.settings import load_settings
from labelloop.errors import StackError
from labelloop.labels.results import make_label_config
from labelloop.objects.storage import MemoryStore
from labelloop.store.projects import ProjectRecord, ProjectStore
from operations.deployment import Deployment
from operations.projects.rotate import hand_over_stack_key
from tests.fakes.studio_api import StudioApi, studio_of

CONFIG = make_label_config(["cat", "dog"])


def hidden_values(secrets: Secrets) -> set[str]:
    return {getattr(secrets, name) for name in vars(secrets) if name.endswith(("password", "token", "secret_key"))}


def a_state(directory: Path) -> StackState:
    return open_state(directory, lambda _: None)


def test_ports_and_secrets_are_the_same_at_the_next_start(tmp_path: Path) -> None:
    assert a_state(tmp_path) == a_state(tmp_path)
    assert len(set(vars(a_state(tmp_path).ports).values())) == 6


def test_a_token_is_forty_hex_digits() -> None:
    token = Secrets().studio_token
    assert len(token) == 40
    assert set(token) <= set("0123456789abcdef")


def test_the_file_is_private(tmp_path: Path) -> None:
    with locked(tmp_path / "new"):
        a_state(tmp_path / "new")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "stack.json").stat().st_mode) == 0o600


def test_no_secret_is_seen_when_the_state_is_printed(tmp_path: Path) -> None:
    state = a_state(tmp_path)
    assert not [value for value in hidden_values(state.secrets) if value in repr(state)]


def test_a_port_taken_by_somebody_else_is_picked_anew_and_said(tmp_path: Path) -> None:
    before, messages = a_state(tmp_path), []
    with socket.create_server((LOOPBACK, before.ports.valkey)):
        after = open_state(tmp_path, messages.append)
    assert after.ports == replace(before.ports, valkey=after.ports.valkey)
    assert after.ports.valkey != before.ports.valkey
    assert len(messages) == 1
    assert "valkey" in messages[0]


def test_a_service_added_by_a_later_version_gets_a_port(tmp_path: Path) -> None:
    before = a_state(tmp_path)
    raw = json.loads((tmp_path / "stack.json").read_text())
    del raw["ports"]["dashboard"], raw["secrets"]["dashboard_password"]
    (tmp_path / "stack.json").write_text(json.dumps(raw))
    after = a_state(tmp_path)
    assert after.ports.dashboard > 0
    assert after.ports.valkey == before.ports.valkey
    assert after.secrets.dashboard_password


def test_every_stack_has_an_s3_key_of_its_own() -> None:
    first, second = Secrets().s3_key, Secrets().s3_key
    assert len(first.secret) >= 40
    assert first.secret != second.secret


def test_a_stack_of_an_earlier_release_gets_a_key_of_its_own_once_and_keeps_the_rest(tmp_path: Path) -> None:
    before, messages = a_state(tmp_path), list[str]()
    raw = json.loads((tmp_path / "stack.json").read_text())
    raw["secrets"] |= {"s3_access_key": "test", "s3_secret_key": "test"}
    (tmp_path / "stack.json").write_text(json.dumps(raw))
    assert load_state(tmp_path) != before, "while it runs, the former key is the right one"
    after = open_state(tmp_path, messages.append)
    assert after.secrets.s3_secret_key not in {"test", before.secrets.s3_secret_key}
    former = {"s3_access_key": before.secrets.s3_access_key, "s3_secret_key": before.secrets.s3_secret_key}
    assert replace(after.secrets, **former) == before.secrets
    assert len(messages) == 1
    assert a_state(tmp_path) == after


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"ports": {}, "secrets": 3}'])
def test_an_unreadable_file_is_an_error_that_says_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "stack.json").write_text(text)
    with pytest.raises(StackError, match="start over"):
        load_state(tmp_path)


def test_lost_secrets_of_existing_data_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "label-studio").mkdir()
    with pytest.raises(StackError, match="missing although"):
        a_state(tmp_path)


def test_a_second_stack_on_one_directory_is_refused_with_the_pid(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StackError, match=str(os.getpid())), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_only_a_living_supervisor_is_running(tmp_path: Path) -> None:
    assert running_stack(tmp_path) is None
    state = a_state(tmp_path)
    assert running_stack(tmp_path) is None
    me = RunningProcess(os.getpid(), start_time(os.getpid()) or 0)
    save_state(replace(state, supervisor=me))
    assert running_stack(tmp_path) == replace(state, supervisor=me)
    save_state(replace(state, supervisor=replace(me, started=me.started - 1)))
    assert running_stack(tmp_path) is None


def test_progress_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    progress = StackProgress(True, (ServiceStatus("s3", ServiceState.RESTARTING, None, 2, time.time(), "code 1"),))
    write_progress(tmp_path, progress)
    assert read_progress(tmp_path) == progress


def test_no_secret_is_in_argv_and_the_stores_come_first(tmp_path: Path) -> None:
    state = a_state(tmp_path)
    services = loop_services(state, {"PATH": "/bin"}, tmp_path)
    words = " ".join(word for service in services for word in service.argv)
    assert not [value for value in hidden_values(state.secrets) if value in words]
    assert all("valkey" in service.depends_on for service in services)
    assert {service.name: service.niceness for service in services}["train"] == 10


def test_the_environment_overrides_the_commands_own_and_bypasses_proxies(tmp_path: Path) -> None:
    state = a_state(tmp_path)
    base = {"LABELLOOP_REDIS_URL": "redis://elsewhere", "NO_PROXY": "example.com", "LABELLOOP_WEIGHTS": "kept"}
    env = loop_services(state, base, tmp_path)[0].env
    assert env["LABELLOOP_REDIS_URL"] == loop_environment(state)["LABELLOOP_REDIS_URL"] == state.redis_url
    assert env["LABELLOOP_WEIGHTS"] == "kept"
    assert env["NO_PROXY"] == "example.com,127.0.0.1,localhost"


def test_foreign_servers_get_nothing_that_could_configure_them(tmp_path: Path) -> None:
    place = ServicePlace(tmp_path, 1, tmp_path / "log", {"PATH": "/bin", "DJANGO_DB": "default", "AWS_PROFILE": "mine"})
    assert place.env({"A": "b"}).keys() == {"PATH", "PYTHONUNBUFFERED", "PYTHONWARNINGS", "A"}


def test_valkey_listens_on_loopback_alone_and_keeps_its_data(tmp_path: Path) -> None:
    lines = valkey_config(ServicePlace(tmp_path, 123, tmp_path / "log", {}), "hush").splitlines()
    assert {"bind 127.0.0.1", "port 123", "requirepass hush", "appendonly yes"} <= set(lines)


def test_a_new_label_studio_gets_the_migrated_database_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    template, data = tmp_path / "template", tmp_path / "data"
    copy_database(template, data)
    assert not list(data.iterdir())
    template.write_text("migrated")
    copy_database(template, data)
    (copied,) = data.iterdir()
    assert copied.read_text() == "migrated"
    copied.write_text("with labels")
    copy_database(template, data)
    assert copied.read_text() == "with labels"


def test_label_studio_is_handed_the_stacks_s3_key_for_every_project_that_is_still_there() -> None:
    api = StudioApi(storages={n: {"id": n, "project": n, "aws_secret_access_key": "test"} for n in (1, 2, 3)})
    settings = load_settings({"LABELLOOP_S3_ACCESS_KEY": "labelloop", "LABELLOOP_S3_SECRET_KEY": "fresh",
                              "LABELLOOP_S3_ENDPOINT": "http://127.0.0.1:2"})  # fmt: skip
    projects: Any = ProjectStore(MemoryStore(), "main")
    for number, storage in ((1, 1), (2, None), (3, 3), (4, 9)):  # of the last one, the source was deleted
        record = ProjectRecord(
            "main", number, 0, "pets", ProjectConfig(name="pets"), CONFIG, "s3://images/t/", storage_id=storage
        )
        projects.put(record)
    nobody: Any = None
    deployment = Deployment(settings, nobody, MemoryStore(), nobody, projects)
    vars(deployment)["studio"] = studio_of(api)
    assert hand_over_stack_key(deployment) == []
    assert [api.storages[n]["aws_secret_access_key"] for n in (1, 2, 3)] == ["fresh", "test", "fresh"]
    assert api.storages[1]["s3_endpoint"] == "http://127.0.0.1:2"
