"""Whatever JSON stands in an answer or a task, and whatever a label config says: read, or refused in words.

A sample. All of it: ``python -m bench.faults.hostile``.
"""

from __future__ import annotations

from collections import Counter

from bench.faults.hostile import answers, configs


def test_any_json_in_any_place_of_an_answer_or_a_task_is_read() -> None:
    assert list(answers(500, seed=7)) == []


def test_any_label_config_is_served_or_refused_in_words() -> None:
    found = Counter[str]()
    assert list(configs(400, seed=7, found=found)) == []
    assert min(found["served"], found["refused"]) > 20  # both happen
