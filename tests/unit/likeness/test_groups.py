"""Doubt joins a group and never a picture; what is proven to stand on two sides stands on none."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from labelloop.config.shares import SplitShares
from labelloop.likeness.groups import Rules, place
from labelloop.likeness.proof import Kinship
from labelloop.likeness.relatives import Relative, crowd_cap
from labelloop.records.given import Given
from labelloop.records.images import ImageFacts, Split
from labelloop.records.tasks import Annotation, Task
from labelloop.rules.auto_label.audit import ground_of
from labelloop.rules.auto_label.audit import groups_of as audit_groups
from labelloop.rules.revisions import aside
from labelloop.rules.split import split_of
from operations.data.duplicates import groups_of
from tests.unit.worlds.learning import AT

SHARES = SplitShares()
SAME, SCENE, UNSURE, MIRRORED = Kinship.SAME, Kinship.SCENE, Kinship.UNSURE, Kinship.MIRRORED


@dataclass
class Told:
    """Pictures whose kinship is written down: (new, known) -> kinship."""

    kin: Mapping[tuple[str, str], Kinship] = field(default_factory=dict)

    def of(self, uri: str, placed: Container[str], cap: int) -> list[Relative]:
        assert cap
        near = [(other, kin) for (one, other), kin in self.kin.items() if one == uri and other in placed]
        return [Relative(other, kin, kin is SAME) for other, kin in near]

    def is_same(self, uri: str, other: str) -> bool:
        return uri == other or self.kin.get((uri, other)) is SAME


def new(*uris: str) -> list[ImageFacts]:
    return [ImageFacts(uri, "e", f"sha-{uri}") for uri in uris]


def placed(
    kin: Mapping[tuple[str, str], Kinship],
    *uris: str,
    known: list[ImageFacts] | None = None,
    rules: Rules | None = None,
) -> dict[str, ImageFacts]:
    before = known or []
    buckets = {f.group: f.bucket for f in before}
    facts = place(new(*uris), before, Told(kin), rules or Rules(SHARES, 8), buckets)
    return {f.uri: f for f in facts}


def test_only_the_same_is_one_picture_and_all_kin_share_a_bucket() -> None:
    kin = {("b", "a"): SAME, ("c", "a"): SCENE, ("d", "a"): UNSURE, ("e", "a"): MIRRORED}
    facts = placed(kin, "a", "b", "c", "d", "e", "f")
    assert {facts[u].group for u in "abcde"} == {"sha-a"}
    assert {facts[u].bucket for u in "abcde"} == {split_of("sha-a", SHARES)}
    assert facts["f"].group == "sha-f"
    assert [facts[u].twin for u in "abcdef"] == ["sha-a", "sha-a", "sha-c", "sha-d", "sha-e", "sha-f"]


def test_a_chain_of_small_changes_is_no_picture() -> None:
    facts = placed({("b", "a"): SAME, ("c", "b"): SAME}, "a", "b", "c")
    assert facts["b"].twin == "sha-a"
    assert facts["c"].twin == "sha-c"  # nobody has proven it to be a
    assert facts["c"].group == "sha-a"


def test_likeness_alone_joins_up_to_the_cap_and_proof_always() -> None:
    uris = [f"{i:02d}" for i in range(20)]
    chain = {(b, a): UNSURE for a, b in pairwise(uris)}
    sizes = [f.group for f in placed(chain, *uris).values()]
    assert max(sizes.count(group) for group in sizes) <= 8
    copies = {(uri, "00"): SAME for uri in uris[1:]}
    assert len({f.group for f in placed(copies, *uris).values()}) == 1


def test_two_new_groups_become_one_where_a_third_image_is_both() -> None:
    facts = placed({("c", "a"): SAME, ("c", "b"): MIRRORED}, "a", "b", "c")
    assert len({f.group for f in facts.values()}) == len({f.bucket for f in facts.values()}) == 1


def test_what_was_decided_stays_and_who_is_on_two_sides_is_on_none() -> None:
    before = [ImageFacts("x", "e", "sha-x", "gx", Split.TRAIN), ImageFacts("y", "e", "sha-y", "gy", Split.TEST)]
    facts = placed({("a", "x"): SAME, ("a", "y"): MIRRORED, ("b", "y"): SAME, ("c", "x"): SCENE, ("c", "y"): SCENE},
                   "a", "b", "c", known=before)  # fmt: skip
    assert facts["a"].bucket is Split.QUARANTINE
    assert (facts["b"].group, facts["b"].bucket, facts["b"].twins) == ("gy", Split.TEST, "gy")  # an old record's group
    assert (facts["c"].group, facts["c"].bucket) == ("gx", Split.TRAIN)  # likeness is no proof of a leak


def test_the_same_bytes_are_the_same_picture_without_a_look() -> None:
    before = [ImageFacts("x", "e", "sha", "g", Split.TEST, twin="t")]
    (copy,) = place([ImageFacts("y", "e", "sha")], before, Told(), Rules(SHARES, 8), {"g": Split.TEST})
    assert (copy.group, copy.twin, copy.bucket) == ("g", "t", Split.TEST)


def test_groups_and_test_set_of_people_come_first() -> None:
    stated = {"t1": Given("p1", Split.TEST), "r1": Given("p2"), "r2": Given("p2")}
    rules = Rules(SplitShares(test=0.0), 8, lambda f: stated.get(f.uri, Given()), own_test=True)
    facts = placed({("r1", "t1"): SAME, ("z", "t1"): SCENE}, "r1", "r2", "t1", "z", rules=rules)
    assert (facts["t1"].group, facts["t1"].bucket) == ("p1", Split.TEST)
    assert facts["r1"].bucket is Split.QUARANTINE  # its patient trains, its picture judges
    assert facts["r2"].group == "p2"
    assert facts["r2"].bucket is not Split.TEST
    assert facts["z"].bucket is not Split.TEST  # the same scene is no copy


def test_the_cap_grows_with_the_pool() -> None:
    assert [crowd_cap(pool) for pool in (1, 160, 200, 400, 1000, 10**6)] == [8, 8, 10, 20, 32, 32]


def task(number: int, uri: str, label: str) -> Task:
    return Task(number, uri, AT, (Annotation(number, AT, AT, label),))


def test_contradictions_are_questions_and_labels_beside_others_are_counted() -> None:
    images = {
        uri: ImageFacts(uri, "e", f"sha-{uri}", group, bucket, twin=twin)
        for uri, group, bucket, twin in (
            ("a", "g", Split.TRAIN, "t"), ("b", "g", Split.TRAIN, "t"), ("c", "g", Split.TRAIN, "u"),
            ("d", "h", Split.AUDIT, "v"), ("e", "h", Split.AUDIT, "w"), ("f", "q", Split.QUARANTINE, "q"),
        )
    }  # fmt: skip
    tasks = [task(i, uri, label) for i, (uri, label) in enumerate(zip("abcdef", "xyyxyx", strict=True), 1)]
    first = groups_of(images.values(), tasks)[0]
    assert [m.uri for m in first.questions[0]] == ["a", "b"]
    assert "which one is right" in first.why
    counts = aside(tasks, images, set(images))
    assert [n for why, n in counts.items() if "two classes" in why] == [2]
    assert [n for why, n in counts.items() if "reports in their place" in why] == [1]
    assert [n for why, n in counts.items() if "two splits" in why] == [1]


def test_of_a_group_the_audit_sample_holds_one_picture() -> None:
    images = [ImageFacts(u, "e", u, "patient", Split.AUDIT, twin=u) for u in "abc"]
    groups = audit_groups(images, [task(1, "b", "cat")], set("abc"))
    ground = ground_of(groups, 0)
    assert [g.uri for g in ground.sample] == ["b"]
    assert {g.uri for g in ground.rest} == {"a", "c"}
