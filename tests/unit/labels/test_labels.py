"""Label configs: found by tags, aliases exact, what cannot be served is refused with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from labelloop.errors import LabelConfigError
from labelloop.labels.results import SEED_MARK, has_mark, make_label_config, parse_label_config
from labelloop.studio.rows import annotation_of

CONFIG = """<View><Header value="What is it?"/><Image name="pic" value="$photo"/>
<Choices name="kind" toName="pic"><Choice value="Cat" alias="felis"/><View><Choice value="Dog"/></View></Choices>
<TextArea name="note" toName="pic"/></View>"""


def test_control_is_found_by_its_tags_and_aliases_replace_values() -> None:
    schema = parse_label_config(CONFIG)
    assert (schema.control, schema.to_name, schema.data_key) == ("kind", "pic", "photo")
    assert schema.classes == ("felis", "Dog")


def test_a_result_reads_back() -> None:
    schema = parse_label_config(CONFIG)
    assert schema.read(schema.result("felis", 0.7)) == ("felis", None)


def test_an_answer_under_another_control_says_so() -> None:
    schema = parse_label_config(CONFIG)
    note = {"from_name": "note", "type": "textarea", "value": {"text": ["blurred"]}}
    assert schema.read([note]) == (None, "nothing chosen under 'kind': the answer is that of 'note'")
    assert schema.read([note, *schema.result("Dog")]) == ("Dog", None)


def answer(value: Any, **more: Any) -> list[Any]:
    return [{"from_name": "kind", "to_name": "pic", "type": "choices", "value": value, **more}]


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        (answer(None), "value of the answer is null"),
        ([{"from_name": "kind"}], "value of the answer is null"),
        (answer({"choices": None}), "`choices` of the answer is null"),
        (answer({"choices": "Dog"}), "`choices` of the answer is text"),
        (answer({"choices": [1]}), "the class is a number"),
        (answer({"choices": [True]}), "the class is true"),
        (answer({"choices": [["animal", "Dog"]]}), "a path of nested choices"),
        (answer({"choices": [{"Dog": 1}]}), "the class is an object"),
        (answer({"choices": ["Dog", "felis"]}), "2 classes chosen"),
        (answer({"choices": ["\ud800"]}), "characters that no name has"),
        (answer({"choices": ["\x1b[31mDog"]}), "characters that no name has"),
        (answer({"choices": ["x" * 501]}), "longer than 500"),
        (answer({"choices": [" "]}), "empty"),
        (answer({"choices": ["Dog"], "x": 1, "y": 2, "width": 3}), "that of a region"),
        (answer({"choices": ["Dog"], "imageDataURL": "data:"}), "that of a region"),
        (answer({"choices": ["Dog"]}, item_index=0), "that of a region or an item"),
        (["Dog"], "an item of the answer is text"),
        ([None], "an item of the answer is null"),
        ({"from_name": "kind"}, "the answer is an object"),
        ("Dog", "the answer is text"),
        (None, "the answer is null"),
        ([{"from_name": ["kind"], "value": {"choices": ["Dog"]}}], "a control without a name"),
    ],
)
def test_what_cannot_be_read_has_a_problem_in_words(result: Any, problem: str) -> None:
    label, reason = parse_label_config(CONFIG).read(result)
    assert label is None
    assert reason is not None
    assert problem in reason


def test_nothing_chosen_is_no_problem_of_reading() -> None:
    schema = parse_label_config(CONFIG)
    assert schema.read([]) == schema.read(answer({"choices": []})) == (None, None)


@pytest.mark.parametrize(
    ("meta", "seed"),
    [
        ({"text": ["seed"]}, True), ({"text": ["a", "seed"]}, True), ({"text": "seed"}, True),
        ({"text": "no seeds visible"}, False), ({"text": ["seeds"]}, False), ({"text": None}, False), (["seed"], False),
        ("seed", False), (None, False), ({"text": {"seed": 1}}, False),
    ],
)  # fmt: skip
def test_a_seed_is_marked_exactly(meta: Any, seed: bool) -> None:
    assert has_mark(answer({"choices": ["Dog"]}, meta=meta), SEED_MARK) is seed


def test_an_image_is_found_under_its_key_or_not_at_all() -> None:
    schema = parse_label_config(CONFIG)
    assert schema.uri({"photo": "s3://b/a.png"}) == "s3://b/a.png"
    for data in (None, [], "photo", {}, {"photo": None}, {"photo": ["s3://b/a.png"]}, {"photo": "s3://b/\ud800.png"},
                 {"photo": "s3://b/" + "x" * 9000}):  # fmt: skip
        assert schema.uri(data) == ""


def test_a_class_that_the_label_config_lacks_is_read_as_it_was_given() -> None:
    schema = parse_label_config(CONFIG)
    assert "Cat" not in schema.classes
    assert schema.read(schema.result("Cat")) == ("Cat", None)


def test_two_chosen_classes_are_a_problem_not_a_label() -> None:
    schema = parse_label_config(CONFIG)
    both = [{**schema.result("Dog")[0], "value": {"choices": ["Dog", "felis"]}}]
    label, problem = schema.read(both)
    assert label is None
    assert problem == "2 classes chosen, one is expected"


def test_generated_config_holds_any_class_name() -> None:
    names = ('a "quoted" & <odd> name', "naïve", "2", "four")
    assert parse_label_config(make_label_config(names)).classes == names


IMAGE = '<Image name="image" value="$image"/>'
TWO = '<Choice value="a"/><Choice value="b"/>'


def config(choices: str = TWO, image: str = IMAGE, *, more: str = "", to: str = "image") -> str:
    return f'<View>{image}<Choices name="label" toName="{to}" {more}>{choices}</Choices></View>'


BOMB = '<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><View>&b;</View>'


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        ("<View>", "not valid XML"),
        (
            "<View><Text name='t' value='$t'/><Choices name='c' toName='t'><Choice value='a'/></Choices></View>",
            "0 <Choices>",
        ),
        (CONFIG.replace('toName="pic"><Choice', 'toName="pic" choice="multiple"><Choice'), "one class per image"),
        (CONFIG.replace('alias="felis"', 'alias="Dog"'), "same value"),
        (CONFIG.replace('<View><Choice value="Dog"/></View>', ""), "two <Choice>"),
        (BOMB, "not valid XML"),
        (config(more='perRegion="true"'), "perRegion"),
        (config(more='perregion="True"'), "perRegion"),
        (config(more='perItem="true"'), "perItem"),
        (config(more='allowNested="true"'), "allowNested"),
        (
            config('<Choice value="x"><Choice value="a"/><Choice value="b"/></Choice><Choice value="c"/>'),
            "within another",
        ),
        (config(more='choice="several"'), 'choice="several"'),
        (config("", more='value="$options"'), "takes choices from each task"),
        (config(more='value="$options"'), "takes choices from each task"),
        (config('<Choice value="$kind"/><Choice value="b"/>'), "filled in from each task"),
        (config(more='visibleWhen="region-selected"'), "hidden at times"),
        (f'<View><View whenChoiceValue="x">{config()}</View></View>', "hidden at times"),
        (f'<View><Repeater on="$pages">{config()}</Repeater></View>', "<Repeater>"),
        (f'<View><View style="color: red; Display : NONE">{config()}</View></View>', "hidden at times"),
        (f'<View><View style="opacity: 0.0">{config()}</View></View>', "hidden at times"),
        (config('<Choice value="a"/><View visibleWhen="no-region-selected"><Choice value="b"/></View>'), "hidden at"),
        (config('<Choice value="a"/><Choice value="b" style="visibility:hidden"/>'), "hidden at times"),
        (config(image=f'<View visibleWhen="choice-selected">{IMAGE}</View>'), '<Image name="image"> is hidden'),
        (config(more='readonly="true"'), "read-only"),
        (config('<Choice value="a" readonly="true"/><Choice value="b"/>'), "read-only"),
        (config('<Choice value="a" selected="true"/><Choice value="b"/>'), "ticked from the start"),
        (config(TWO + '<Choices name="in" toName="text"><Choice value="c"/></Choices>'), "in a <Choices>"),
        (config('<Choice value="\u00e9"/><Choice value="e\u0301"/>'), "same value"),
        (config('<Choice value="\u200b"/><Choice value="b"/>'), "is no name"),
        (config('<Choice value="a\u2028b"/><Choice value="b"/>'), "line breaks"),
        (config(image='<Image name="image" value="https://host/$name"/>'), "put together"),
        (config(image='<Image name="image" value="$name.$kind"/>'), "put together"),
        (config(image='<Image name="image" value="$meta.url"/>'), "is a path into"),
        (config(image='<Image name="image" value="$images[0].url"/>'), "is a path into"),
        (config(image='<Image name="image" value="https://host/a.png"/>'), "same image in every task"),
        (config(image='<Image name="image" value="$my-image"/>'), "put together"),
        (config(image='<Image name="image" value="$bild_ä"/>'), "put together"),
        (config(image='<Image name="image"/>'), "has no value"),
        (config(image='<Image name="image" valueList="$images"/>'), "several images"),
        (config(image=IMAGE + '<Image name="other" value="$other"/>'), "one of 2 images"),
        (config(image=IMAGE + '<Image name="other" value="$other"/>', to="image,other"), "names several tags"),
        (config(image=IMAGE + '<Text name="text" value="$text"/>', to="text,image"), "names several tags"),
        (config(to="picture"), "which is no <Image>"),
        (config().replace(' toName="image"', ""), "which is no <Image>"),
        (config().replace(' name="label"', ""), "has no name"),
        (config(image=IMAGE + '<Text name="label" value="$text"/>'), "shares its name"),
        (config('<Choice value="a" alias=""/><Choice value="b"/>'), "empty alias"),
        (config('<Choice value="a" alias=" "/><Choice value="b"/>'), "empty alias"),
        (config('<Choice value="a"/><Choice value=" a "/>'), "same value"),
        (config('<Choice value=" "/><Choice value="b"/>'), "needs its class"),
        (config("<Choice>a</Choice><Choice>b</Choice>"), "needs its class"),
        (config('<Choice value="a">c</Choice><Choice value="b"/>'), "no text"),
        (config(f'<Choice value="{"x" * 501}"/><Choice value="b"/>'), "500 characters"),
        (config('<Choice value="a&#10;b"/><Choice value="b"/>'), "line breaks"),
        (config("".join(f'<Choice value="{i}"/>' for i in range(1001))), "at most 1,000"),
        (config(TWO + " " * 1_000_000), "characters, and at most"),
        ("<View>" * 150 + config() + "</View>" * 150, "nests more than"),
        ('<View><HyperText name="h">' + config() + "</HyperText></View>", "0 <Choices>"),
        ('<?xml version="1.0" encoding="nonsense"?>' + "<View/>", "<Choices>|not valid XML"),
        ("\ud800", "not valid XML"),
        ("a\x00", "not valid XML"),
        ("", "not valid XML"),
        (None, "is no text"),
        (b"<View/>", "is no text"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_reason(xml: Any, reason: str) -> None:
    with pytest.raises(LabelConfigError, match=reason):
        parse_label_config(xml)


@pytest.mark.parametrize(
    "xml",
    [
        config(),
        config(more='perRegion="false" allowNested="false" required="true" choice="single-radio" layout="select"'),
        config().lower().replace("toname", "toName"),
        config('<Choice value="a" selected="false" readonly="false" style="opacity: 0.5"/><Choice value="b"/>'),
        config('<Choice value="$kind" alias="a"/><Choice value="cost $ 5"/><Header value="$text"/>'),
        config(image=IMAGE + '<Image name="legend" value="https://host/legend.png"/>'),
        config(image=IMAGE + '<TextArea name="note" toName="image" required="true"/>'),
        config(image=IMAGE + '<Repeater on="$notes"><Text name="t_{{idx}}" value="$notes[{{idx}}]"/></Repeater>'),
    ],
)
def test_what_can_be_served_is(xml: str) -> None:
    schema = parse_label_config(xml)
    assert (schema.control, schema.to_name, schema.data_key) == ("label", "image", "image")
    assert len(schema.classes) == 2


@pytest.mark.parametrize(
    ("value", "on"),
    [
        (True, True), (1, True), ("true", True), ("1", True), (False, False), (None, False), ("false", False),
        ("no", False), ("", False), (float("nan"), False), ([0], False), ({"a": 1}, False), (2, False),
    ],
)  # fmt: skip
def test_a_switch_of_an_answer_is_on_where_it_says_so(value: Any, on: bool) -> None:
    schema = parse_label_config(CONFIG)
    row = {"id": 1, "result": schema.result("Dog"), "was_cancelled": value, "ground_truth": value}
    annotation = annotation_of(row, schema)
    assert (annotation.cancelled, annotation.ground_truth, annotation.label) == (on, on, None if on else "Dog")


def test_a_prediction_of_an_endless_version_is_not_ours() -> None:
    schema = parse_label_config(CONFIG)
    assert annotation_of({"prediction": {"model_version": "v" * 10_000, "result": []}}, schema).seen is None
