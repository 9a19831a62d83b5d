import numpy as np
import pytest
from safetensors.numpy import save

from labelloop.errors import CorruptArtefactError
from labelloop.model.head import Head, load_head

RNG = np.random.default_rng(0)
HEAD = Head(("a", "b", "c"), RNG.normal(size=(3, 5)).astype(np.float32), np.zeros(3, np.float32), 0.7)
FEATURES = RNG.normal(size=(9, 5)).astype(np.float32)


def test_probabilities_sum_to_one_even_for_huge_logits() -> None:
    for scale in (1, 1e4):
        probabilities = HEAD.probabilities(FEATURES * np.float32(scale))
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_temperature_softens_without_changing_the_answer() -> None:
    soft = Head(HEAD.labels, HEAD.weight, HEAD.bias, 5.0).probabilities(FEATURES)
    sharp = HEAD.probabilities(FEATURES)
    assert (soft.argmax(axis=1) == sharp.argmax(axis=1)).all()
    assert (soft.max(axis=1) < sharp.max(axis=1)).all()


def test_dump_and_load_give_the_same_answers() -> None:
    again = load_head(HEAD.dump(), HEAD.labels)
    np.testing.assert_array_equal(again.probabilities(FEATURES), HEAD.probabilities(FEATURES))


def test_inputs_are_left_alone() -> None:
    before = FEATURES.copy()
    HEAD.probabilities(FEATURES)
    np.testing.assert_array_equal(FEATURES, before)


@pytest.mark.parametrize(
    "data",
    [
        b"not safetensors",
        HEAD.dump()[:-4],
        save({"weight": HEAD.weight, "bias": HEAD.bias}),
        Head(HEAD.labels[:2], HEAD.weight[:2], HEAD.bias[:2]).dump(),
        Head(HEAD.labels, HEAD.weight * np.float32(np.nan), HEAD.bias).dump(),
        Head(HEAD.labels, HEAD.weight, HEAD.bias, 0.0).dump(),
    ],
)
def test_broken_artefacts_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptArtefactError):
        load_head(data, HEAD.labels)
