"""Figures of the watcher, the workers and the backend; and that the document and the alerts know each of them."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from api.metrics import ApiMetrics
from labelloop.clock import now
from labelloop.config.settings import load_settings
from labelloop.queue.jobs import JobState
from labelloop.records.tasks import Annotation, Task
from labelloop.web.exposition import expose
from ml_backend.metrics import Metrics
from retrain_worker.metrics import WorkerMetrics
from sync.metrics import Move, SyncMetrics, moves_between, oldest_waits

ROOT = Path(__file__).parents[3]
LONG_AGO = "2020-01-01T00:00:00.000000Z"


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def task(number: int, *annotations: Annotation) -> Task:
    return Task(number, f"s3://images/{number}.png", now(), annotations)


FIRST = Annotation(1, "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z", "cat")


# --- sync


def test_what_became_of_annotations_between_two_turns() -> None:
    same = task(1, FIRST)
    before = {1: same, 2: task(2, FIRST), 3: task(3, FIRST), 4: task(4, FIRST)}
    changed = replace(FIRST, label="dog", updated_at="2026-01-02T00:00:00.000000Z")
    skipped = replace(FIRST, id=9, label=None, cancelled=True)
    after = {1: same, 2: task(2, changed), 3: task(3, FIRST, skipped), 5: task(5, FIRST)}
    moves = sorted(moves_between(before, after), key=lambda m: m.kind)
    assert [m.kind for m in moves] == ["changed", "created", "deleted", "skipped"]
    assert moves[0].at == changed.updated_at
    assert list(moves_between(after, after)) == []


def test_a_reused_id_is_another_annotation() -> None:
    later = replace(FIRST, created_at="2026-03-01T00:00:00.000000Z", updated_at="2026-03-01T00:00:00.000000Z")
    assert sorted(m.kind for m in moves_between({1: task(1, FIRST)}, {1: task(1, later)})) == ["created", "deleted"]


def facts(sequence: int, version: str, **changes: Any) -> dict[str, Any]:
    return {
        "problem": None, "published": version, "latest": {"sequence": sequence, "annotations": 12},
        "pool": {"images": 100, "featurised": 90, "unreadable": 1},
        "plan": {"until_refresh": 4, "until_retrain": 150, "waiting": None}, **changes,
    }  # fmt: skip


def test_facts_become_figures() -> None:
    metrics = SyncMetrics()
    registry = metrics.registry
    metrics.saw({"p": facts(7, "v1")})
    metrics.saw({"p": facts(9, "v2", problem="S3 is away")})
    assert value(registry, "labelloop_sync_freezes_total", project="p") == 2
    assert value(registry, "labelloop_sync_snapshot_sequence", project="p") == 9
    assert value(registry, "labelloop_sync_switches_total", project="p") == 1
    assert value(registry, "labelloop_sync_version_info", project="p", version="v1") is None
    assert value(registry, "labelloop_sync_version_info", project="p", version="v2") == 1
    assert value(registry, "labelloop_sync_problem", project="p") == 1
    assert value(registry, "labelloop_sync_pool", project="p", state="featurised") == 90
    assert value(registry, "labelloop_sync_labels_until", project="p", kind="refresh") == 4
    metrics.saw({})
    assert value(registry, "labelloop_sync_problem", project="p") is None
    assert value(registry, "labelloop_sync_version_info", project="p", version="v2") is None


def test_a_project_without_facts_yet_is_no_error() -> None:
    metrics = SyncMetrics()
    metrics.saw({"p": {"problem": None, "published": None, "latest": None, "plan": None, "pool": None}})
    assert value(metrics.registry, "labelloop_sync_snapshot_sequence", project="p") == 0
    metrics.saw({})


def test_moves_and_their_lag_are_counted() -> None:
    metrics = SyncMetrics()
    metrics.moved("p", [Move("created", now()), Move("created", now()), Move("deleted", None)])
    assert value(metrics.registry, "labelloop_sync_annotations_total", project="p", kind="created") == 2
    assert value(metrics.registry, "labelloop_sync_lag_seconds_count") == 2


def test_log_lines_and_requests_are_counted() -> None:
    metrics = SyncMetrics()
    registry = metrics.registry
    metrics.heard({"action": "queue", "level": "info", "kind": "refresh", "project": "p"})
    metrics.heard({"action": "push", "level": "info", "count": 200, "project": "p"})
    metrics.heard({"action": "freeze", "level": "info", "seconds": 0.5})
    metrics.asked_studio("GET api/tasks/", 0.02, 200)
    metrics.asked_studio("GET api/tasks/", 0.02, 401)
    metrics.asked_studio("GET api/tasks/", 0.02, 0)
    assert value(registry, "labelloop_sync_queued_jobs_total", project="p", kind="refresh") == 1
    assert value(registry, "labelloop_sync_pushed_predictions_total", project="p") == 200
    assert value(registry, "labelloop_sync_freeze_seconds_sum") == 0.5
    assert value(registry, "labelloop_sync_events_total", action="queue", level="info") == 1
    for status in ("2xx", "401", "none"):
        assert value(registry, "labelloop_sync_studio_seconds_count", call="GET api/tasks/", status=status) == 1


def test_the_queue_is_measured_by_the_job_that_waits_longest() -> None:
    jobs = [
        JobState("a", "refresh", "p", "queued", queued_at=now()),
        JobState("b", "refresh", "p", "queued", queued_at=LONG_AGO),
        JobState("c", "retrain", "p", "started", queued_at=LONG_AGO),
    ]
    assert set(oldest_waits(jobs)) == {"refresh"}
    assert oldest_waits(jobs)["refresh"] > 1e6
    metrics = SyncMetrics()
    metrics.queues({"refresh": 2, "train": 0}, jobs)
    assert value(metrics.registry, "labelloop_sync_queue_depth", queue="refresh") == 2
    assert value(metrics.registry, "labelloop_sync_queue_oldest_seconds", queue="train") == 0


# --- workers


def test_a_worker_counts_jobs_and_verdicts() -> None:
    metrics = WorkerMetrics()
    meta = {"kind": "refresh", "project": "p"}
    metrics.ended(meta, succeeded=True, took_s=0.4, result={"outcome": "promote"})
    metrics.ended(meta, succeeded=False, took_s=0.1, result=None)
    registry = metrics.registry
    assert value(registry, "labelloop_worker_jobs_total", kind="refresh", outcome="finished") == 1
    assert value(registry, "labelloop_worker_jobs_total", kind="refresh", outcome="failed") == 1
    assert value(registry, "labelloop_worker_verdicts_total", project="p", kind="refresh", outcome="promote") == 1
    assert value(registry, "labelloop_worker_job_seconds_sum", kind="refresh") == 0.5


# --- the backend


def test_a_backend_shows_one_version_per_project() -> None:
    metrics = Metrics()
    metrics.live("p", "v1", "b")
    metrics.live("p", "v2", "b")
    assert b'version="v1"' not in metrics.text()
    metrics.forget("p")
    assert b'version="v2"' not in metrics.text()


PROCESSES = """
import os, sys
from pathlib import Path
from ml_backend.metrics import Metrics

folder = Path(sys.argv[1])
for number in (1, 2):
    if os.fork() == 0:
        metrics = Metrics(folder)
        metrics.requests.labels("predict", "200").inc(number)
        metrics.live("p", "v1", "b")
        metrics.live("p", f"v{number + 1}", "b")
        os._exit(0)
    os.wait()
sys.stdout.buffer.write(Metrics(folder).text())
"""


def test_several_processes_answer_for_all_of_them(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESSES, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True,
        env={"PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    families = {family.name: family for family in text_string_to_metric_families(done.stdout)}
    (requests,) = (s for s in families["labelloop_backend_requests"].samples if s.name.endswith("_total"))
    assert requests.value == 3
    shown = [s.labels["version"] for s in families["labelloop_backend_version_info"].samples if s.value == 1]
    assert sorted(shown) == ["v2", "v3"], "each process its own"


# --- the port


def test_metrics_are_shown_where_a_port_is_given_and_a_taken_one_stops_nobody() -> None:
    import socket
    import urllib.request

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        settings = load_settings({"LABELLOOP_METRICS_PORT": str(port)})
        assert not expose(SyncMetrics().registry, settings)
    assert not expose(SyncMetrics().registry, load_settings({}))
    assert expose(SyncMetrics().registry, settings)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b"labelloop_sync_leader" in answer.read()


# --- documents


def wrapped() -> Iterator[MetricWrapperBase]:
    for metrics in (Metrics(), ApiMetrics(), SyncMetrics(), WorkerMetrics()):
        collectors = {c for c in metrics.registry._collector_to_names if isinstance(c, MetricWrapperBase)}
        yield from collectors


def told(metric: MetricWrapperBase) -> tuple[str, str, str]:
    """(name as Prometheus has it, type, labels)."""
    name = f"{metric._name}_total" if metric._type == "counter" else metric._name
    return name, metric._type, ", ".join(metric._labelnames)


PAGE = (ROOT / "docs/metrics.md").read_text()
ROWS = re.findall(r"^\| `(labelloop_\w+)` \| (\w+) \|([^|]*)\| ([^|]+) \| ([^|]+) \|$", PAGE, flags=re.M)
ALERTS = yaml.safe_load((ROOT / "configs/alerts.yml").read_text())["groups"][0]["rules"]


def test_every_metric_is_explained_with_type_labels_and_an_alert() -> None:
    assert sorted((name, kind, labels.strip()) for name, kind, labels, _, _ in ROWS) == sorted(map(told, wrapped()))


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    metrics = {name: {label.strip() for label in labels.split(",")} for name, _, labels, _, _ in ROWS}
    used = re.findall(r"(labelloop_\w+)(?:\{([^}]*)\})?", rule["expr"])
    assert used
    for name, filters in used:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert base in metrics, name
        assert set(re.findall(r"(\w+)=", filters)) <= metrics[base], name
    assert rule["annotations"]["summary"]


def test_prometheus_reads_the_alerts_and_every_service() -> None:
    config = yaml.safe_load((ROOT / "configs/prometheus.yml").read_text())
    assert config["rule_files"] == ["alerts.yml"]
    names = {n for job in config["scrape_configs"] for sd in job["dns_sd_configs"] for n in sd["names"]}
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    ours = {name for name, s in services.items() if s["image"].startswith("labelloop:") and name != "dashboard"}
    assert names <= ours
    assert {"sync", "ml-backend", "api"} <= names
