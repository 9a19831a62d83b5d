"""Which annotation trained: the same answer as the fit itself gives, and a reason for every other one."""

from __future__ import annotations

import random
from collections.abc import Collection

from labelloop.records.images import ImageFacts, Split
from labelloop.records.snapshots import Snapshot
from labelloop.records.tasks import Annotation, Task
from labelloop.rules.revisions import Use, revisions, tally
from retrain_worker.evidence.collect import entering, one_per_picture, one_per_unit
from retrain_worker.evidence.examples import examples_of


class FakeCatalogue:
    """Only what `examples_of` reads."""

    def __init__(self, images: dict[str, ImageFacts]) -> None:
        self.images = images


def facts(uri: str, *, group: str = "", bucket: Split = Split.TRAIN, problem: str | None = None) -> ImageFacts:
    return ImageFacts(uri, "e", "", group or uri, bucket, problem)


def task(number: int, *labels: str | None, uri: str = "") -> Task:
    answers = tuple(
        Annotation(10 * number + i, str(i), str(i), label, cancelled=label is None) for i, label in enumerate(labels)
    )
    return Task(number, uri or str(number), "t", answers)


def uses(tasks: list[Task], images: list[ImageFacts], featurised: Collection[str] | None = None) -> list[Use]:
    known = {f.uri: f for f in images}
    there = known if featurised is None else featurised
    return [r.use for r in revisions(tasks, known, there, {"cat", "dog"})]


def test_every_annotation_has_a_use() -> None:
    images = [facts("1"), facts("2", bucket=Split.TEST), facts("3", bucket=Split.AUDIT), facts("4", problem="gone"),
              facts("5"), facts("6"), facts("7")]  # fmt: skip
    tasks = [task(1, "cat", "dog", None), task(2, "cat"), task(3, "cat"), task(4, "cat"), task(5, "owl"), task(6, None),
             task(8, "cat")]  # fmt: skip
    assert uses(tasks, images) == [
        Use.OLDER, Use.TRAINED, Use.SKIPPED, Use.TEST, Use.AUDIT, Use.UNUSABLE, Use.WAITING, Use.SKIPPED, Use.UNUSABLE
    ]  # fmt: skip
    assert uses([task(1, "cat")], images, featurised=()) == [Use.UNUSABLE]


def test_of_images_that_show_the_same_one_trains_and_contradictions_none() -> None:
    images = [facts(u, group="g") for u in ("a", "b")] + [facts(u, group="h") for u in ("c", "d")]
    same = [task(2, "cat", uri="a"), task(1, "cat", uri="b")]
    assert uses(same, images) == [Use.DUPLICATE, Use.TRAINED]  # by task; the first address stands for both
    assert uses([task(1, "cat", uri="c"), task(2, "dog", uri="d")], images) == [Use.CONFLICT, Use.CONFLICT]


def test_of_an_audit_group_one_picture_speaks_and_different_labels_are_no_contradiction() -> None:
    images = [ImageFacts(u, "e", "", "patient", Split.AUDIT, twin=u) for u in ("a", "b", "c")]
    given = [task(1, "cat", uri="a"), task(2, "dog", uri="b"), task(3, "cat", uri="c")]
    assert uses(given, images) == [Use.AUDIT, Use.RELATED, Use.RELATED]
    test = [ImageFacts(u, "e", "", "patient", Split.TEST, twin=u) for u in ("a", "b", "c")]
    assert uses(given, test) == [Use.TEST] * 3  # together once: see `retrain_worker.evidence.clusters`
    train = [ImageFacts(u, "e", "", "patient", Split.TRAIN, twin=u) for u in ("a", "b", "c")]
    assert uses(given, train) == [Use.TRAINED] * 3


def test_an_answer_without_a_class_is_empty() -> None:
    empty = Task(1, "1", "t", (Annotation(1, "0", "0", None, problem="2 classes chosen"),))
    found = revisions([empty], {"1": facts("1")}, {"1"}, {"cat"})
    assert tally(found) == {"empty": 1}


def test_what_trained_is_what_the_fit_learned_from() -> None:
    rng = random.Random(0)
    groups = [f"g{i}" for i in range(150)]
    names = [*["cat", "dog"] * 15, "owl", "owl", None, None, None]
    images, tasks = {}, []
    for i in range(400):
        bucket = rng.choice(list(Split))
        images[str(i)] = facts(str(i), group=rng.choice(groups) + bucket, bucket=bucket,
                               problem="bad" if rng.random() < 0.1 else None)  # fmt: skip
        tasks.append(task(i, *(rng.choice(names) for _ in range(rng.randint(1, 2)))))
    featurised = {u for u in images if rng.random() < 0.9}
    snapshot = Snapshot("s", {t.id: t for t in tasks})
    learned = [e for e in examples_of(snapshot, FakeCatalogue(images), featurised) if e.bucket is Split.TRAIN]  # type: ignore[arg-type]
    agreed, conflicts = one_per_unit(learned)
    classes, waiting = entering([e.label for e in agreed.values()], 9)
    found = revisions(tasks, images, featurised, classes)
    assert waiting
    assert conflicts
    assert {r.task for r in found if r.use is Use.TRAINED} == {e.task_id for e in agreed.values() if e.label in classes}
    train = {uri for uri, f in images.items() if f.bucket is Split.TRAIN}
    assert {r.uri for r in found if r.use is Use.CONFLICT} & train == set(conflicts)
    for use, bucket in ((Use.TEST, Split.TEST), (Use.AUDIT, Split.AUDIT)):
        given = examples_of(snapshot, FakeCatalogue(images), featurised)  # type: ignore[arg-type]
        judging = [e for e in given if e.bucket is bucket]
        kept = one_per_picture(judging)[0] if use is Use.TEST else one_per_unit(judging)[0].values()
        assert {r.task for r in found if r.use is use} == {e.task_id for e in kept}
    counted = {t.id: t.counted for t in tasks}
    for r in found:
        if r.use is Use.TRAINED:
            answer = counted[r.task]
            assert answer is not None
            assert (r.annotation, r.label) == (answer.id, answer.label)
