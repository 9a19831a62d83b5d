"""Classes that are gone: what is proposed, and what may be decided."""

from __future__ import annotations

import pytest

from labelloop.errors import SettingsError
from labelloop.labels.results import LabelSchema, make_label_config, parse_label_config
from labelloop.rules.migration import ProposedStep, Wishes, changed, decide, in_words, propose, undecided


def schema(*classes: str) -> LabelSchema:
    return parse_label_config(make_label_config(classes))


def test_classes_with_labels_that_are_gone_wait_for_a_decision() -> None:
    waiting = undecided(["cat", "dog", "cat", "owl"], ("dog", "feline"))
    assert waiting == {"cat": 2, "owl": 1}
    assert in_words(waiting) == ("class 'cat' (2 labels)", "class 'owl' (1 label)")
    assert undecided(["dog"], ("dog", "feline")) == {}


def test_what_changed_in_a_label_config() -> None:
    change = changed(schema("cat", "dog"), schema("dog", "feline"), labelled=True)
    assert (change.added, change.removed, change.hidden) == (("feline",), ("cat",), None)


def test_a_control_with_labels_must_keep_its_name() -> None:
    other = parse_label_config(make_label_config(("cat", "dog")).replace('name="label"', 'name="kind"'))
    change = changed(schema("cat", "dog"), other, labelled=True)
    assert change.hidden is not None
    assert "'kind'" in change.hidden
    assert changed(schema("cat", "dog"), other, labelled=False).hidden is None


@pytest.mark.parametrize(
    ("waiting", "classes", "labelled", "kind", "new"),
    [
        (["cat"], ("dog", "feline"), ("cat", "dog"), ProposedStep.RENAME, "feline"),  # one went, one came
        (
            ["cat"],
            ("dog", "Cat", "owl"),
            ("cat", "dog"),
            ProposedStep.RENAME,
            "Cat",
        ),  # of two new ones the one that is alike
        (["cats"], ("dog", "cat"), ("cats", "dog", "cat"), ProposedStep.MERGE, "cat"),
        (["cat"], ("dog", "owl"), ("cat", "dog", "owl"), ProposedStep.DROP, None),
    ],
)
def test_the_likeliest_is_proposed(
    waiting: list[str], classes: tuple[str, ...], labelled: tuple[str, ...], kind: ProposedStep, new: str | None
) -> None:
    (proposal,) = propose(waiting, classes, labelled)
    assert (proposal.kind, proposal.new) == (kind, new)


def test_no_new_class_is_proposed_twice() -> None:
    found = propose(["tabby cat", "tabby cats"], ("tabby-cat", "dog"), ("tabby cat", "tabby cats", "dog"))
    assert [p.new for p in found].count("tabby-cat") == 1
    assert {p.old for p in found} == {"tabby cat", "tabby cats"}


def test_options_are_one_word_for_a_shell() -> None:
    (proposal,) = propose(["it's"], ("its", "dog"), ("it's", "dog"))
    assert proposal.option == """--map 'it'"'"'s=its'"""


GIVEN, CLASSES = ("cat", "dog", "owl"), ("dog", "feline", "owl")


def test_maps_drops_and_second_thoughts() -> None:
    renamed = decide({}, Wishes({"cat": "feline"}), labelled=GIVEN, classes=CLASSES)
    assert renamed == {"cat": "feline"}
    dropped = decide(renamed, Wishes(drops=("cat",)), labelled=GIVEN, classes=CLASSES)
    assert dropped == {"cat": None}
    back = decide(dropped, Wishes(keeps=("cat",)), labelled=GIVEN, classes=(*CLASSES, "cat"))
    assert back == {}


def test_a_second_rename_goes_on_from_the_first_and_can_be_taken_back_alone() -> None:
    twice = decide(
        {"cat": "feline"}, Wishes({"feline": "felis"}), labelled=(*GIVEN, "feline"), classes=("dog", "felis")
    )
    assert twice == {"cat": "feline", "feline": "felis"}
    back = decide(twice, Wishes(keeps=("feline",)), labelled=GIVEN, classes=("dog", "feline"))
    assert back == {"cat": "feline"}


@pytest.mark.parametrize(
    ("label_map", "wishes", "reason"),
    [
        ({}, Wishes({"cow": "dog"}), "no label was ever given as 'cow'"),
        ({}, Wishes({"cat": "cow"}), "'cat' cannot become 'cow'"),
        ({}, Wishes({"dog": "dog"}), "another class"),
        ({}, Wishes({"cat": "dog"}, ("cat",)), "more than once"),
        ({}, Wishes(keeps=("cat",)), "nothing was decided about 'cat'"),
        ({"cat": None}, Wishes(keeps=("cat",)), "add 'cat' to the label config first"),
        ({"dog": "owl"}, Wishes({"owl": "dog"}), "in a circle"),
        ({"cat": "lynx"}, Wishes(drops=("dog",)), "a class that the label config lacks"),
    ],
)
def test_what_cannot_be_decided_says_why(label_map: dict[str, str | None], wishes: Wishes, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        decide(label_map, wishes, labelled=GIVEN, classes=CLASSES)
