"""The ensemble as it is kept: the same answers after loading, and nothing damaged or hostile gets in."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load, save

from labelloop.errors import CorruptArtefactError
from labelloop.model.classifier import Classifier, load_classifier
from labelloop.model.ensemble import KIND, EnsembleHead, Member, is_ensemble, load_ensemble, tempered
from labelloop.model.head import Head
from labelloop.model.onnx_member import start
from labelloop.records.json import canonical, digest
from retrain_worker.heads.to_onnx import Kernel, Tree, kernel_model, trees_model

LABELS = ("zebra", "ant", "mole")  # not sorted: the order of the columns is theirs
D = 5
RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(40, D)).astype(np.float32)


def stumps(count: int = 4) -> list[Tree]:
    low, high = np.array([1, -1, -1]), np.array([2, -1, -1])
    votes = RNG.normal(size=(count, 3, len(LABELS))).astype(np.float32)
    votes[:, 0] = 0
    return [Tree(np.array([i % D, 0, 0]), np.zeros(3, np.float32), low, high, votes[i]) for i in range(count)]


KERNEL = kernel_model(
    Kernel(
        np.eye(D, 2, dtype=np.float32), np.zeros(2), RNG.normal(size=(6, 2)).astype(np.float32),
        RNG.normal(size=(6, 3)), np.zeros(3),
    )
)  # fmt: skip
TREES = trees_model(stumps(), dimension=D, strict=True, labelled=range(3))


def head_of(*models: bytes, labels: tuple[str, ...] = LABELS) -> EnsembleHead:
    """A head of bytes that nobody has looked over."""
    members = tuple(Member(f"member{i}", model, lambda rows: rows) for i, model in enumerate(models))
    return EnsembleHead(labels, D, members, 0.8)


def running(*models: bytes) -> EnsembleHead:
    bare = head_of(*models)
    return EnsembleHead(LABELS, D, tuple(Member(m.name, m.model, start(m.model)) for m in bare.members), 0.8)


HEAD = running(KERNEL, TREES)


def changed(change: Callable[[Any], object], model: bytes = TREES) -> bytes:
    """A whole file whose first member is an ONNX model with a change, and with a hash that fits it."""
    parsed = onnx.ModelProto.FromString(model)
    change(parsed)
    return head_of(parsed.SerializeToString(), KERNEL).dump()


def attribute(model: Any, name: str) -> Any:
    return next(a for a in model.graph.node[0].attribute if a.name == name)


def test_both_kinds_are_classifiers_and_load_by_their_bytes() -> None:
    linear = Head(LABELS, RNG.normal(size=(3, D)).astype(np.float32), np.zeros(3, np.float32))
    heads: list[Classifier] = [linear, HEAD]
    for head in heads:
        again = load_classifier(head.dump(), LABELS)
        assert type(again) is type(head)
        assert (again.labels, again.dimension) == (LABELS, D)
        np.testing.assert_array_equal(again.probabilities(FEATURES), head.probabilities(FEATURES))
        assert again.dump() == head.dump()


def test_every_member_has_the_same_say() -> None:
    votes = [m.run(FEATURES).astype(np.float64) for m in HEAD.members]
    expected = tempered(np.mean(votes, axis=0), HEAD.temperature)
    np.testing.assert_allclose(HEAD.probabilities(FEATURES), expected, atol=1e-6)


@pytest.mark.parametrize("scale", [1, 1e6, 1e30])
def test_probabilities_sum_to_one(scale: float) -> None:
    probabilities = HEAD.probabilities(FEATURES * np.float32(scale))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_no_rows_and_many_rows() -> None:
    assert HEAD.probabilities(FEATURES[:0]).shape == (0, 3)
    many = np.tile(FEATURES, (60, 1))
    np.testing.assert_array_equal(HEAD.probabilities(many), np.tile(HEAD.probabilities(FEATURES), (60, 1)))


def test_tempering_is_dividing_logits_and_keeps_zeros() -> None:
    logits = np.array([[2.0, 0.0, 1.0]])
    plain = np.exp(logits) / np.exp(logits).sum()
    expected = np.exp(logits / 3) / np.exp(logits / 3).sum()
    np.testing.assert_allclose(tempered(plain, 3.0), expected)
    np.testing.assert_allclose(tempered(np.array([[0.0, 0.5, 0.5]]), 7.0), [[0, 0.5, 0.5]])


def test_threads_get_what_one_gets() -> None:
    expected = HEAD.probabilities(FEATURES)
    with ThreadPoolExecutor(8) as pool:
        for probabilities in pool.map(HEAD.probabilities, [FEATURES] * 200):
            np.testing.assert_array_equal(probabilities, expected)


def test_every_single_changed_byte_of_a_member_is_found() -> None:
    data = HEAD.dump()
    length = 8 + int.from_bytes(data[:8], "little")
    for place in range(length, len(data), 97):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        with pytest.raises(CorruptArtefactError):
            load_classifier(bytes(damaged), LABELS)


def test_a_damaged_header_is_refused_or_says_the_same() -> None:
    data = HEAD.dump()
    length = 8 + int.from_bytes(data[:8], "little")
    for place in range(length):
        damaged = bytearray(data)
        damaged[place] ^= 0x01
        try:
            head = load_classifier(bytes(damaged), LABELS)
        except CorruptArtefactError:
            continue
        # a digit of a temperature, or a name: what is left still is a head; the version's hash finds these
        assert head.probabilities(FEATURES).shape == (40, 3)


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 9, 100, 1000, -1, -5000])
def test_cut_files_are_refused(keep: int) -> None:
    with pytest.raises(CorruptArtefactError):
        load_classifier(HEAD.dump()[:keep], LABELS)


@pytest.mark.parametrize("labels", [LABELS[:2], (*LABELS, "bee"), ("ant", "mole", "zebra"), ()])
def test_other_labels_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(CorruptArtefactError, match="classes"):
        load_classifier(HEAD.dump(), labels)


class Trap:
    """A pickle that leaves a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "ran"))
    about = {"labels": LABELS, "dimension": D, "temperature": 1.0}
    about["members"] = [{"name": "m", "sha256": digest(trap)}]
    inside = save({"m": np.frombuffer(trap, np.uint8)}, metadata={KIND: canonical(about).decode()})
    for data in (trap, inside, head_of(trap).dump()):
        with pytest.raises(CorruptArtefactError):
            load_classifier(data, LABELS)
    assert not (tmp_path / "ran").exists()


def outside(model: Any, place: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": place, "offset": "0", "length": "40"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


@pytest.mark.parametrize("place", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_a_model_that_reads_a_file_is_refused(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("weights.bin").write_bytes(b"\0" * 40)
    with pytest.raises(CorruptArtefactError, match="file"):
        load_classifier(changed(lambda m: outside(m, place), KERNEL), LABELS)


def nested(model: Any) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", onnx.GraphProto(name="inner")))


def elsewhere(model: Any) -> None:
    """The trees look at a row of one feature that the file brings along."""
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((1, 1), np.float32), "narrow"))
    model.graph.node[0].input[0] = "narrow"


def twice(model: Any) -> None:
    """Whoever reads the first of two lists sees another one than who reads the last."""
    model.graph.node[0].attribute.insert(0, helper.make_attribute("nodes_featureids", [10**6] * 12))


def other_operator(model: Any) -> None:
    model.graph.node[1].op_type = "If"


HOSTILE: dict[str, Callable[[Any], object]] = {
    "another operator": other_operator,
    "an operator of another domain": lambda m: setattr(m.graph.node[1], "domain", "com.microsoft"),
    "a nested graph": nested,
    "a function": lambda m: m.functions.add(name="f", domain="d"),
    "training": lambda m: m.training_info.add(),
    "another version of the operators": lambda m: setattr(m.opset_import[0], "version", 9),
    "a feature beyond the row": lambda m: attribute(m, "nodes_featureids").ints.__setitem__(0, 10**6),
    "a feature before the row": lambda m: attribute(m, "nodes_featureids").ints.__setitem__(0, -1),
    "a tree that goes round": lambda m: attribute(m, "nodes_truenodeids").ints.__setitem__(0, 0),
    "a child in no tree": lambda m: attribute(m, "nodes_truenodeids").ints.__setitem__(0, 3),
    "a node with two parents": lambda m: attribute(m, "nodes_truenodeids").ints.__setitem__(0, 2),
    "a class that is not there": lambda m: attribute(m, "target_ids").ints.__setitem__(0, 3),
    "a vote of no leaf": lambda m: attribute(m, "target_nodeids").ints.__setitem__(0, 0),
    "a vote of no tree": lambda m: attribute(m, "target_treeids").ints.__setitem__(0, 99),
    "another count of classes": lambda m: setattr(attribute(m, "n_targets"), "i", 2),
    "other rows than the features": elsewhere,
    "one list twice": twice,
    "a list cut short": lambda m: attribute(m, "nodes_values").floats.pop(),
    "a missing list": lambda m: m.graph.node[0].attribute.pop(),
    "trees out of order": lambda m: attribute(m, "nodes_treeids").ints.__setitem__(0, 1),
    "a threshold that is no number": lambda m: attribute(m, "nodes_values").floats.__setitem__(0, float("nan")),
    "an unknown comparison": lambda m: attribute(m, "nodes_modes").strings.__setitem__(0, b"BRANCH_GT"),
    "another input": lambda m: m.graph.input.add(name="more"),
    "another dimension": lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", 6),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_model_we_would_not_write_is_refused(what: str) -> None:
    with pytest.raises(CorruptArtefactError):
        load_classifier(changed(HOSTILE[what]), LABELS)


def test_the_models_themselves_are_let_in() -> None:
    for model in (TREES, KERNEL):
        assert load_classifier(changed(lambda m: None, model), LABELS).labels == LABELS


def test_a_tree_too_deep_for_the_runtime_is_refused() -> None:
    n = 1201
    low = np.where(np.arange(n) % 2 == 0, np.arange(n) + 1, -1)
    high = np.where(np.arange(n) % 2 == 0, np.arange(n) + 2, -1)
    low[-1] = high[-1] = -1
    votes = np.zeros((n, 3), np.float32)
    deep = Tree(np.zeros(n, np.int64), np.zeros(n, np.float32), low, high, votes)
    data = head_of(trees_model([deep], dimension=D, strict=True, labelled=range(3))).dump()
    with pytest.raises(CorruptArtefactError, match="too large"):
        load_classifier(data, LABELS)


def rewritten(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with other words about its members."""
    data = HEAD.dump()
    length = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][KIND])
    change(about)
    return bytes(save(load(data), metadata={KIND: json.dumps(about)}))


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(members=[]),
        lambda about: about["members"].pop(),
        lambda about: about["members"].append(about["members"][0]),
        lambda about: about.update(temperature=0),
        lambda about: about.update(temperature=float("nan")),
        lambda about: about.update(temperature=1e9),
        lambda about: about.update(dimension=4),
        lambda about: about.update(dimension=-1),
        lambda about: about.update(dimension=10**400),
        lambda about: about.pop("labels"),
        lambda about: about.update(members={"a": 1}),
        lambda about: about["members"][0].update(sha256="0" * 64),
    ],
)
def test_words_that_do_not_fit_are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(CorruptArtefactError):
        load_classifier(rewritten(change), LABELS)


@pytest.mark.parametrize("text", ["[" * 100_000, "no json", "7", ""])
def test_metadata_that_is_no_json_is_refused(text: str) -> None:
    data = save({"a": np.zeros(1, np.uint8)}, metadata={KIND: text})
    with pytest.raises(CorruptArtefactError):
        load_classifier(data, LABELS)


def test_huge_files_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("labelloop.model.ensemble.LARGEST", 1000)
    with pytest.raises(CorruptArtefactError, match="at most"):
        load_ensemble(HEAD.dump(), LABELS)


def test_whether_bytes_are_an_ensemble() -> None:
    assert is_ensemble(HEAD.dump())
    assert not any(is_ensemble(data) for data in (b"", b"12345678", b"\xff" * 100, save({"a": np.zeros(1)})))
    assert not is_ensemble((2).to_bytes(8, "little") + b"[]")


def test_serving_loads_neither_torch_nor_the_libraries_that_fit(tmp_path: Path) -> None:
    file = tmp_path / "head.safetensors"
    file.write_bytes(HEAD.dump())
    program = (
        "import sys, pathlib; from labelloop.model.classifier import load_classifier\n"
        "assert 'onnxruntime' not in sys.modules and 'onnx' not in sys.modules\n"
        f"load_classifier(pathlib.Path(sys.argv[1]).read_bytes(), {LABELS!r})\n"
        "heavy = {'torch', 'sklearn', 'scipy', 'xgboost', 'lightgbm'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program, str(file)], check=True, cwd=Path(__file__).parents[3])
