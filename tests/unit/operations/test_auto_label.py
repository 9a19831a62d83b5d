"""Labels for the rest of the pool: decided by audit labels, kept apart, pushed beside the queue and never into it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import cli.connect
import operations.data.auto_label
import operations.data.auto_label_push
import sync.predictions.retired
from cli.main import app
from cli.views.auto_label import auto_label_view, notes
from labelloop.clock import stamp
from labelloop.config.project import parse_config
from labelloop.errors import ConflictError, CorruptArtefactError, LabelloopError, NotFoundError, StudioError
from labelloop.labels.results import make_label_config
from labelloop.model.head import Head
from labelloop.records.evidence import Outcome, Verdict
from labelloop.records.images import ImageFacts, Split
from labelloop.records.tasks import Annotation, QueuePlace, Task
from labelloop.rules.acquisition import lot
from labelloop.rules.auto_label.rule import Promise
from labelloop.rules.split import shown_blind
from labelloop.store.auto_labels import AutoLabelStore
from labelloop.store.catalogue import Catalogue
from labelloop.store.deleted import keep_deleted
from labelloop.store.features import FeatureStore
from labelloop.store.registry import Draft
from labelloop.store.scores import ScoreStore
from operations.data.auto_label import AutoLabelled, AutoLabelRequest, keep, propose, write_out
from operations.data.auto_label_push import push, withdraw
from sync.predictions.publish import Publisher
from tests.fakes.studio import FakeStudio
from tests.unit.worlds.operations import DAY, PREFIX, OpsDeployment, OpsWorld, evaluation

CLASSES = ("cat", "dog")
SHARES = {Split.TRAIN: 700, Split.TEST: 100, Split.AUDIT: 200}


def quiet(_what: str, _done: int, _of: int) -> None:
    """Nobody watches."""


class StudioDeployment(OpsDeployment):
    """With a Label Studio in memory."""

    fake: FakeStudio

    @property
    def studio(self) -> Any:
        return self.fake


class World(OpsWorld):
    """A thousand images of cats and dogs; the model errs only where it is not sure."""

    def __init__(self, tmp: Path, **config: Any) -> None:
        super().__init__(**config)
        old = self.deployment
        settings = replace(old.settings, cache_dir=tmp)
        self.deployment = StudioDeployment(settings, old.s3, old.store, old.queue, old.projects)
        self.fake = self.deployment.fake = FakeStudio(self.record.schema)
        draw = np.random.default_rng(0)
        self.truth: dict[str, str] = {}
        self.buckets: dict[str, Split] = {}
        logits = draw.uniform(0, 4, 1000)
        rows = np.zeros((1000, 2), dtype=np.float32)
        for i, bucket in enumerate(b for b, n in SHARES.items() for _ in range(n)):
            uri, code = f"{PREFIX}{i:04d}.png", int(draw.integers(2))
            rows[i, code] = logits[i]
            right = logits[i] > 1 or draw.random() < 0.6
            self.truth[uri], self.buckets[uri] = CLASSES[code if right else 1 - code], bucket
        self.uris = list(self.truth)
        Catalogue(self.store).add([ImageFacts(u, "e", u, self.group(u), b) for u, b in self.buckets.items()], stamp())
        FeatureStore(self.store, "b", tmp / "other").add(stamp(), self.uris, ["e"] * 1000, rows)
        head = Head(CLASSES, np.eye(2, dtype=np.float32), np.zeros(2, dtype=np.float32), 1.0)
        self.deploy(self.registry.add(Draft(
            kind="refresh", backbone="b", head=head, snapshot="s", config="c", code="0", parent=None, reference=None,
            recipe={}, evaluation=evaluation(), verdict=Verdict(Outcome.PROMOTE, ()), check_features=rows[:1],
        )))  # fmt: skip
        self.numbers = {uri: self.fake.add_task(uri) for uri in self.uris}

    def group(self, uri: str) -> str:
        return f"g-{uri}"

    def drawn(self, bucket: Split = Split.AUDIT) -> list[str]:
        """As the random quota shows them."""
        mine = [u for u, b in self.buckets.items() if b is bucket]
        return sorted(mine, key=lambda u: lot(self.record.config.seed, self.group(u)))

    def label(self, *uris: str, **wrong: str) -> None:
        """People answer, rightly but for ``wrong``; a new snapshot."""
        for uri in uris:
            number = self.numbers[uri]
            annotation = Annotation(number, DAY.format(1), DAY.format(1), wrong.get(uri, self.truth[uri]))
            self.tasks[number] = Task(number, uri, DAY.format(1), (annotation,))
            self.fake.annotate(number, annotation.label)
        self.freeze()

    def propose(self, version: str | None = None, **promise: Any) -> AutoLabelled:
        return propose(self.deployment, self.record, AutoLabelRequest(Promise(**promise), version, "anna"), quiet)


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path)
    train = [u for u, b in world.buckets.items() if b is Split.TRAIN]
    world.label(*world.drawn()[:150], *train[:50])
    return world


def test_the_sure_ones_get_labels_and_the_others_stay_for_people(world: World) -> None:
    proposal = world.propose()
    manifest = proposal.manifest
    assert (manifest.audit, manifest.images, manifest.drawn_from, manifest.version) == (150, 800, 1000, "v1")
    assert 0.5 < manifest.coverage < 0.9
    wrong = sum(world.truth[one.uri] != one.label for one in proposal.labels)
    assert wrong <= 0.05 * manifest.labelled
    assert manifest.lines == manifest.labelled == len(proposal.labels) == sum(manifest.classes.values())
    (part,) = manifest.parts
    assert min(one.probability for one in proposal.labels) == pytest.approx(part.threshold, abs=1e-5)
    assert part.bound is not None
    assert part.bound >= 0.95
    assert not {one.uri for one in proposal.labels} & {t.uri for t in world.tasks.values()}
    assert {one.source for one in proposal.labels} == {"auto-v1"}
    assert (
        sum(row.labelled for row in proposal.by_class)
        == sum(row.labelled for row in proposal.by_sureness)
        == manifest.labelled
    )
    assert sum(row.audit for row in proposal.by_sureness) == 150


def test_thin_evidence_is_refused_in_words(world: World, tmp_path: Path) -> None:
    proposal = world.propose(precision=0.99)
    assert proposal.labels == ()
    assert "needs 299 without an error" in proposal.refused[0]
    lines = list(notes(proposal))
    assert lines[0] == "800 images stay for people, hardest first"
    assert "50 audit images have no answer yet" in lines[1]
    console = Console(record=True, width=200)
    console.print(auto_label_view(proposal))
    assert "refused" in console.export_text()
    fresh = World(tmp_path / "fresh")
    with pytest.raises(NotFoundError, match="nothing is labelled yet"):
        fresh.propose()
    fresh.label(fresh.uris[0])
    assert "no audit label yet" in fresh.propose().refused[0]


@pytest.mark.parametrize("junk", [b"{}", b"[1]", b"\xff", b"[" * 100_000])
def test_damaged_notes_of_removed_tasks_are_read_from_their_copy_else_told(world: World, junk: bytes) -> None:
    uri = world.propose().labels[0].uri
    keep_deleted(world.store, [uri])
    world.store.put("deleted.json", junk)
    proposal = world.propose()
    assert uri not in {one.uri for one in proposal.labels}
    assert proposal.unread == ""
    world.store.put("copies/deleted.json.gz", junk)
    proposal = world.propose()
    assert uri in {one.uri for one in proposal.labels}
    assert next(notes(proposal)).startswith("images of removed tasks may be among them: deleted.json cannot be read")


def test_what_is_kept_is_read_back_and_is_no_annotation(world: World) -> None:
    before = world.snapshots.latest()
    proposal = world.propose()
    keep(world.deployment, world.record, proposal)
    store = AutoLabelStore(world.store)
    assert store.all() == [proposal.manifest]
    assert tuple(store.labels(proposal.manifest)) == proposal.labels
    assert world.snapshots.latest() == before
    keep(world.deployment, world.record, world.propose(precision=0.999))
    assert [(m.look, m.labelled > 0) for m in store.all()] == [(1, True), (2, False)]
    assert any("look 3" in line for line in notes(world.propose()))


def test_labels_that_were_changed_later_are_not_believed(world: World) -> None:
    proposal = world.propose()
    keep(world.deployment, world.record, proposal)
    key = f"auto-labels/v1/{proposal.manifest.id}.jsonl"
    world.store.put(key, world.store.get(key).replace(b'"cat"', b'"dog"'))
    with pytest.raises(CorruptArtefactError, match="changed after"):
        list(AutoLabelStore(world.store).labels(proposal.manifest))


def test_the_file_holds_a_line_per_image_and_its_manifest_beside_it(world: World, tmp_path: Path) -> None:
    proposal = world.propose()
    about = write_out(proposal, tmp_path / "labels.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [line["uri"] for line in lines] == [one.uri for one in proposal.labels]
    assert {"label", "probability", "bucket", "source"} <= set(lines[0])
    assert about == tmp_path / "labels.manifest.json"
    assert json.loads(about.read_text())["precision"] == 0.95


def test_it_reads_features_in_chunks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = world.propose().labels
    sizes: list[int] = []
    rows = FeatureStore.rows

    def counted(store: FeatureStore, uris: list[str]) -> Any:
        sizes.append(len(uris))
        return rows(store, uris)

    monkeypatch.setattr(operations.data.auto_label, "CHUNK", 64)
    monkeypatch.setattr(FeatureStore, "rows", counted)
    assert world.propose().labels == whole
    assert max(sizes) == 64


def test_copies_of_an_image_get_its_label_and_removed_tasks_none(world: World) -> None:
    proposal = world.propose()
    first, second = proposal.labels[0].uri, proposal.labels[1].uri
    copy = PREFIX + "copy.png"
    Catalogue(world.store).add([ImageFacts(copy, "e", "x", world.group(first), world.buckets[first])], stamp())
    FeatureStore(world.store, "b", Path("unused")).add(stamp(), [copy], ["e"], np.zeros((1, 2), dtype=np.float32))
    world.store.put("deleted.json", json.dumps([second]).encode())
    again = world.propose()
    labels = {one.uri: one.label for one in again.labels}
    assert labels[copy] == labels[first]
    assert second not in labels
    assert again.manifest.lines == again.manifest.labelled + 1


def test_classes_are_called_as_they_are_now(tmp_path: Path) -> None:
    world = World(tmp_path, label_map={"dog": "hound"})
    world.label(*world.drawn()[:150])
    with pytest.raises(LabelloopError, match=r"no longer in the label config \(hound\).*labelloop schema"):
        world.propose()
    world.record = replace(world.record, label_config=make_label_config(["cat", "hound"]))
    proposal = world.propose()
    assert set(proposal.manifest.classes) == {"cat", "hound"}
    assert proposal.manifest.coverage > 0.5


def test_a_class_that_counts_no_more_makes_the_answer_wrong(tmp_path: Path) -> None:
    """People say of half the images that they are none of the classes: no answer of the model can be right."""
    world = World(tmp_path)
    world.label(*world.drawn()[:150])
    world.record = replace(world.record, config=parse_config({"label_map": {"dog": None}}, "test"))
    proposal = world.propose()
    assert proposal.labels == ()
    assert proposal.manifest.audit == 150


# --- Label Studio


def test_predictions_lie_beside_the_queue(world: World) -> None:
    studio = world.fake
    train = [u for u in world.uris if world.buckets[u] is Split.TRAIN][60:70]
    studio.push(
        1, world.record.schema, "v1", [(world.numbers[u], QueuePlace(u, 0.5, "cat", 0.5, False, "")) for u in train]
    )
    studio.update_project(1, model_version="v1")
    proposal = world.propose()
    done = push(world.deployment, world.record, proposal, quiet)
    hidden = world.record.config.queue.blind
    pushable = [one for one in proposal.labels if one.bucket == "train" and not shown_blind(one.group, hidden)]
    assert 0 < len(pushable) < sum(one.bucket == "train" for one in proposal.labels)
    assert (done.version, done.predictions) == ("auto-v1", len(pushable))
    assert done.left_out == len(proposal.labels) - len(pushable)
    assert studio.model_version == "v1"
    assert studio.prediction_counts(1) == {"v1": 10, "auto-v1": len(pushable)}
    held = {t: c for t, ps in studio._predictions.items() for v, c in ps if v == "auto-v1"}
    assert all(0 <= c.priority <= 1 and c.label and not c.blind for c in held.values())
    judging = {world.numbers[u] for u, b in world.buckets.items() if b is not Split.TRAIN}
    chance = {world.numbers[u] for u in world.uris if shown_blind(world.group(u), hidden)}
    assert not (judging | chance) & held.keys()  # whoever opened one would see what the model says


def test_tasks_that_were_answered_meanwhile_get_none(world: World) -> None:
    proposal = world.propose()
    pushed = (one.uri for one in proposal.labels if one.bucket == "train" and not shown_blind(one.group, 0.05))
    taken = next(pushed)
    world.fake.annotate(world.numbers[taken], None, skip=True)
    push(world.deployment, world.record, proposal, quiet)
    assert not any(v == "auto-v1" for v, _ in world.fake._predictions.get(world.numbers[taken], ()))


def test_they_come_in_batches_with_progress(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations.data.auto_label_push, "BATCH", 100)
    reports: list[tuple[str, int, int]] = []
    done = push(world.deployment, world.record, world.propose(), lambda *line: reports.append(line))
    assert [n for v, n in world.fake.pushed if v == "auto-v1"][:-1] == [100] * (done.predictions // 100)
    assert reports[-1] == ("push", done.predictions, done.predictions)


def test_a_second_push_waits_until_the_first_was_taken_back(world: World) -> None:
    proposal = world.propose()
    done = push(world.deployment, world.record, proposal, quiet)
    with pytest.raises(ConflictError, match=r"predictions of auto-v1: delete them first.*--withdraw"):
        push(world.deployment, world.record, proposal, quiet)
    assert withdraw(world.deployment, world.record) == {"auto-v1": done.predictions}
    assert withdraw(world.deployment, world.record) == {}
    assert push(world.deployment, world.record, proposal, quiet) == done


def test_the_watcher_neither_counts_nor_retires_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    done = push(world.deployment, world.record, world.propose(), quiet)
    scores = ScoreStore(world.store)
    open_tasks = {u: [world.numbers[u]] for u in world.uris}
    scores.add("v1", snapshot=None, pool=10, policy="", places=[QueuePlace(world.uris[60], 0.5, "cat", 0.6, False, "")])
    publisher = Publisher(world.fake, world.record, world.record.schema, scores)  # type: ignore[arg-type]
    publisher.publish("v1", open_tasks)
    monkeypatch.setattr(sync.predictions.retired, "KEEP_S", 0)
    assert publisher.retire(["v0", "v1"], idle_s=600) == 0
    assert world.fake.prediction_counts(1)["auto-v1"] == done.predictions
    assert world.fake.model_version == "v1"


def test_a_project_that_was_made_anew_is_not_touched(world: World) -> None:
    world.record = replace(world.record, created=5)
    with pytest.raises(StudioError, match="is not main-1-5"):
        operations.data.auto_label_push.check_room(world.deployment, world.record)


# --- the command


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(cli.connect, "open_deployment", lambda _: world.deployment)

    def command(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["auto-label", *words])
        return done.exit_code, done.output

    return command


def manifests(world: World) -> list[Mapping[str, Any]]:
    return [json.loads(world.store.get(i.key)) for i in world.store.list("auto-labels/") if i.key.endswith(".json")]


def test_the_command_shows_and_keeps(run: Any, world: World, tmp_path: Path) -> None:
    code, text = run("--out", str(tmp_path / "x.jsonl"))
    assert code == 0
    assert "95 % of the labels or more are right" in " ".join(text.split())
    assert f"{manifests(world)[0]['labelled']} of 800 images" in text
    assert (tmp_path / "x.jsonl").exists()


def test_the_command_says_why_not_and_ends_with_1(run: Any, world: World) -> None:
    code, text = run("--precision", "0.99")
    assert code == 1
    assert "without an error" in " ".join(text.split())
    assert manifests(world)[0]["labelled"] == 0


def test_json_and_dry_run(run: Any, world: World) -> None:
    code, text = run("--json", "--dry-run", "v1")
    data = json.loads(text[text.index("{") :])
    assert (code, data["version"], data["pushed"]) == (0, "v1", None)
    assert data["coverage"] == pytest.approx(data["labelled"] / data["images"])
    assert manifests(world) == []
    code, text = run("--dry-run", "--push")
    assert code == 1
    assert "--dry-run writes nothing" in " ".join(text.split())


def test_push_and_withdraw(run: Any, world: World) -> None:
    code, text = run("--push")
    assert code == 0
    assert "predictions of auto-v1" in text
    code, text = run("--push")
    assert (code, "delete them first" in " ".join(text.split())) == (1, True)
    code, text = run("--withdraw")
    assert (code, world.fake.prediction_counts(1)) == (0, {})
