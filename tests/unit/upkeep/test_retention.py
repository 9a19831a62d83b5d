"""What stays and what goes, by the rules alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from labelloop.clock import LABEL_STUDIO_FORMAT
from labelloop.config.project import Retention
from labelloop.objects.storage import ObjectInfo
from labelloop.records.evidence import Evaluation, Outcome, Verdict
from labelloop.records.runs import Run
from labelloop.records.versions import LogEntry, Version
from labelloop.upkeep.object_kinds import ObjectKind, StoredObject, classify
from labelloop.upkeep.retention import NEW, Contents, References, Retained, is_due, live_since, mark, sweep

NOW = datetime(2030, 6, 1, tzinfo=UTC)
POLICY = Retention(versions=2, days=30, log_days=365)
TEMPLATE = Version(
    number=1, kind="refresh", backbone="b1", labels=("cat", "dog"), head_key="models/heads/h1.safetensors",
    head_sha256="", snapshot="s1", config="c", code="1", parent=None, reference=None, recipe={},
    evaluation=Evaluation("refresh", 1, 1, ("cat", "dog")), verdict=Verdict(Outcome.PROMOTE, ()), check_features=(),
    check_probabilities=(), created_at="",
)  # fmt: skip


def version(number: int, *, backbone: str = "b1", reference: str | None = None) -> Version:
    return replace(
        TEMPLATE, number=number, backbone=backbone, snapshot=f"s{number}", reference=reference,
        head_key=f"models/heads/h{number}.safetensors",
    )  # fmt: skip


def at(days_ago: float) -> str:
    return (NOW - timedelta(days=days_ago)).strftime(LABEL_STUDIO_FORMAT)


def log(*entries: tuple[str, float] | tuple[str, float, str]) -> list[LogEntry]:
    """(version, days ago[, action]), oldest first."""
    deployments: list[LogEntry] = []
    for i, (name, days, *action) in enumerate(entries, 1):
        previous = deployments[-1].version if deployments else None
        deployments.append(LogEntry(i, name, str(action[0]) if action else "deploy", previous, "t", "", at(days), i))
    return deployments


def run(name: str, *, days: float, snapshot: str = "s", outcome: str = "hold", version: str | None = None) -> Run:
    return Run(name, "refresh", snapshot, "c", 1, at(days), "w", outcome=outcome, version=version)


def refs(
    versions: Sequence[Version] = (), deployments: Sequence[LogEntry] = (), runs: Sequence[Run] = (),
    *, initial: str | None = "b1", backbones: Sequence[str] = (),
) -> References:  # fmt: skip
    return References(versions, deployments, {b: f"tuned-{b}" for b in backbones}, initial, runs, "latest")


def objects(*keys: str, days: float = 10) -> list[StoredObject]:
    return classify(ObjectInfo(key, 7, "", NOW - timedelta(days=days)) for key in keys)


def marked(refs: References, held: Sequence[StoredObject] = (), policy: Retention = POLICY) -> Retained:
    return mark(refs, held, policy, NOW)


def removed(held: Sequence[StoredObject], kept: Retained, contents: Contents | None = None) -> dict[str, str]:
    decision = sweep(held, kept, contents or Contents((), (), {}), NOW)
    assert len(decision.keep) + len(decision.remove) == len(held)
    return {item.key: item.why for item in decision.remove}


# --- searches


def test_a_search_keeps_its_snapshot_until_its_last_trial() -> None:
    waiting = replace(refs([version(1)]), searches=["old"])
    assert marked(waiting).snapshots["old"] == "a search has trials left"
    assert "old" not in marked(refs([version(1)])).snapshots


# --- versions


def test_the_newest_stay_and_those_that_were_never_live_go() -> None:
    kept = marked(refs([version(n) for n in range(1, 6)]))
    assert set(kept.versions) == {"v4", "v5"}


def test_the_live_one_and_the_way_back_stay_however_old_they_are() -> None:
    versions = [version(n) for n in range(1, 9)]
    kept = marked(refs(versions, log(("v1", 900), ("v2", 800), ("v3", 700))))
    assert {n: kept.versions[n] for n in ("v2", "v3")} == {"v3": "live", "v2": "a rollback goes back to it"}
    assert "v1" not in kept.versions


def test_a_rollback_is_part_of_the_way_back() -> None:
    versions = [version(n) for n in range(1, 9)]
    kept = marked(refs(versions, log(("v1", 900), ("v2", 800), ("v3", 700), ("v2", 600, "rollback"))))
    assert kept.versions["v2"] == "live"
    assert kept.versions["v1"] == "a rollback goes back to it"
    assert "v3" not in kept.versions


def test_what_was_live_within_the_time_stays_although_it_was_deployed_before() -> None:
    deployments = log(("v1", 900), ("v2", 800), ("v3", 360), ("v4", 359), ("v5", 358))
    assert live_since(deployments, NOW - timedelta(days=365)) == ["v2", "v3", "v4", "v5"]
    kept = marked(refs([version(n) for n in range(1, 20)], deployments))
    assert set(kept.versions) == {"v2", "v3", "v4", "v5", "v18", "v19"}
    assert kept.versions["v2"] == "live within the last 365 days"


def test_a_log_entry_within_the_time_keeps_what_was_live_before_it() -> None:
    kept = marked(refs([version(n) for n in range(1, 20)], log(("v1", 900), ("v2", 300))))
    assert {"v1", "v2"} <= set(kept.versions)


def test_references_of_what_stays_stay() -> None:
    versions = [version(1), version(2, reference="v1"), *(version(n, reference="v2") for n in range(3, 9))]
    kept = marked(refs(versions))
    assert kept.versions["v2"] == "the reference of v7"
    assert kept.versions["v1"] == "the reference of v2"


def test_references_that_go_in_a_circle_end() -> None:
    assert set(marked(refs([version(1, reference="v2"), version(2, reference="v1")])).versions) == {"v1", "v2"}


def test_a_young_record_stays() -> None:
    held = objects("models/versions/00000001.json", days=0.9)
    kept = marked(refs([version(n) for n in range(1, 6)]), held)
    assert kept.versions["v1"] == NEW


# --- backbones and features


def test_backbones_follow_the_versions_and_the_first_one_stays() -> None:
    versions = [version(1, backbone="old"), version(2, backbone="b2"), version(3, backbone="b3")]
    kept = marked(refs(versions, backbones=["b1", "old", "b2", "b3"]))
    assert set(kept.backbones) == {"b1", "b2", "b3"}


def test_features_of_two_generations_and_of_a_candidate_stay() -> None:
    versions = [version(i, backbone=f"g{i}") for i in range(1, 6)]
    kept = marked(refs(versions, log(("v1", 9), ("v2", 8), ("v3", 7), ("v4", 6))))
    assert set(kept.backbones) == {"b1", "g1", "g2", "g3", "g4", "g5"}
    assert set(kept.features) == {"g4", "g3", "g5"}


def test_after_a_rollback_both_sides_keep_their_features() -> None:
    versions = [version(1, backbone="g1"), version(2, backbone="g2"), version(3, backbone="g2")]
    kept = marked(refs(versions, log(("v1", 9), ("v2", 8), ("v3", 7), ("v1", 6, "rollback"))))
    assert set(kept.features) == {"g1", "g2"}


def test_before_the_first_deploy_the_first_backbone_keeps_its_features() -> None:
    assert set(marked(refs()).features) == {"b1"}


def test_a_backbone_that_is_being_made_keeps_all_it_has() -> None:
    held = objects("backbones/new/weights.safetensors", days=0.1)
    kept = marked(refs([version(1)], backbones=["new"]), held)
    assert kept.backbones["new"] == kept.features["new"] == NEW
    rows = objects("features/new/rows/1.safetensors", "features/new/index/1.json", days=3)
    assert not removed(rows, kept, Contents((), (), {"new": {"1"}}))


# --- snapshots and runs


def test_snapshots_that_something_names_stay() -> None:
    versions = [version(n) for n in range(1, 6)]
    runs = [run("r1", days=3, snapshot="recent"), run("r0", days=60, snapshot="long-ago", outcome="failed")]
    kept = marked(refs(versions, runs=runs, backbones=["b1", "unused"]))
    assert set(kept.snapshots) == {"latest", "s4", "s5", "tuned-b1", "recent"}


def test_the_snapshot_of_the_last_judged_run_stays_however_old_it_is() -> None:
    runs = [run("r1", days=500, snapshot="a"), run("r2", days=400, snapshot="b"),
            run("r3", days=300, snapshot="c", outcome="failed")]  # fmt: skip
    kept = marked(refs(runs=runs))
    assert set(kept.snapshots) == {"latest", "b"}
    assert set(kept.runs) == {"r2", "r3"}


def test_a_run_that_goes_on_keeps_its_snapshot() -> None:
    kept = marked(refs(runs=[run("r1", days=99, snapshot="a", outcome="running")]))
    assert "a" in kept.snapshots


def test_the_run_that_made_a_kept_version_stays() -> None:
    runs = [run("r1", days=900, version="v1", outcome="promote"), run("r2", days=800), run("r3", days=700)]
    kept = marked(refs([version(1)], runs=runs))
    assert set(kept.runs) == {"r1", "r3"}


# --- the sweep


def test_each_object_is_judged_by_its_kind() -> None:
    kept = marked(refs([version(n) for n in range(1, 4)], log(("v2", 5), ("v3", 4))))
    contents = Contents({"models/heads/h2.safetensors", "models/heads/h3.safetensors"}, {"x"}, {"b1": {"2"}})
    held = objects(
        "models/versions/00000001.json", "models/versions/00000003.json", "models/heads/h1.safetensors",
        "models/heads/h3.safetensors", "snapshots/manifests/s1.json", "snapshots/manifests/s3.json",
        "snapshots/shards/x.jsonl.gz", "snapshots/shards/y.jsonl.gz", "scores/v3/1.json", "scores/v3/2.json",
        "scores/v1/1.json", "scores/cold-start/1.json", "backbones/b1/backbone.json", "backbones/initial.json",
        "backbones/b9/weights.safetensors", "features/b1/index/1.json", "features/b1/rows/1.safetensors",
        "features/b1/index/2.json", "features/b1/rows/2.safetensors", "features/b1/rows/3.safetensors",
        "features/b9/index/1.json",
    )  # fmt: skip
    keys = removed(held, kept, contents)
    assert set(keys) == {
        "models/versions/00000001.json", "models/heads/h1.safetensors", "snapshots/manifests/s1.json",
        "snapshots/shards/y.jsonl.gz", "scores/v3/1.json", "scores/v1/1.json", "backbones/b9/weights.safetensors",
        "features/b1/index/1.json", "features/b1/rows/1.safetensors", "features/b1/rows/3.safetensors",
        "features/b9/index/1.json",
    }  # fmt: skip
    assert keys["features/b1/rows/3.safetensors"] == "half-written: nothing names them"
    assert keys["features/b1/rows/1.safetensors"] == "each row was replaced by a newer one"


@pytest.mark.parametrize(
    "key",
    ["deployments/00000001.json", "snapshots/latest.json", "deleted.json", "set-up.json", "paused.json",
     "requests/1.json", "catalogue/1.jsonl", "mirror/a.jpg", "backbones/initial.json", "features/b/other/1.json"],
)  # fmt: skip
def test_what_is_not_known_and_the_log_are_never_touched(key: str) -> None:
    assert not removed(objects(key, days=4000), marked(refs(initial=None)))


def test_nothing_younger_than_a_day_goes() -> None:
    keys = ("models/heads/h.safetensors", "snapshots/shards/y.jsonl.gz", "features/b/rows/1.safetensors")
    kept = marked(refs(initial=None))
    assert not removed(objects(*keys, days=0.99), kept)
    assert set(removed(objects(*keys, days=1.01), kept)) == set(keys)


def test_orders_of_a_version_that_is_called_like_none_go() -> None:
    held = objects("scores/v77/1.json")
    assert removed(held, marked(refs([version(1)]))) == {"scores/v77/1.json": "its version is not kept"}
    assert held[0].what is ObjectKind.SCORES


# --- when


def test_a_project_is_tidied_once_a_day_and_not_on_its_first() -> None:
    created = int((NOW - timedelta(hours=23)).timestamp())
    assert not is_due(None, created, NOW)
    assert is_due(None, created, NOW + timedelta(hours=1))
    assert not is_due(at(0.9), 0, NOW)
    assert is_due(at(1.1), created, NOW)
