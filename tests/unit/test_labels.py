"""Label configs: found by tags, aliases exact, what cannot be served is refused with a reason."""

from __future__ import annotations

import pytest

from labelloop.errors import LabelConfigError
from labelloop.labels import make_label_config, parse_label_config

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


def test_other_controls_are_ignored() -> None:
    schema = parse_label_config(CONFIG)
    note = {"from_name": "note", "type": "textarea", "value": {"text": ["blurred"]}}
    assert schema.read([note]) == (None, None)
    assert schema.read([note, *schema.result("Dog")]) == ("Dog", None)


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
        ('<!DOCTYPE x [<!ENTITY a "b">]><View>&a;</View>', "not valid XML"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_reason(xml: str, reason: str) -> None:
    with pytest.raises(LabelConfigError, match=reason):
        parse_label_config(xml)
