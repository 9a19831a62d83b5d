"""Fitted trees and support vectors in, ONNX bytes out; `labelloop.model.onnx_member` says which graphs it lets in.

Written here and not by the converter packages, because an answer must be that of the library that was fitted, for every
row: onnxmltools rounds LightGBM's thresholds to the nearest float32, so that rows at a threshold change sides. Features
are float32, so a threshold rounded down to float32 splits them exactly as the longer number does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from labelloop.model.onnx_member import DOMAINS, KERNEL, LEAF, TREES, Floats, Ints

IR_VERSION = 10
ABSENT = -1e30  # logit of a class that the member has not seen

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree, its root first, children after their parent. Leaves have ``low`` and ``high`` -1."""

    feature: Ints
    threshold: Floats
    low: Ints  # where the feature is below the threshold
    high: Ints
    votes: Floats  # (nodes, classes): what a leaf adds


def trees_model(trees: Sequence[Tree], *, dimension: int, strict: bool, labelled: Sequence[int] | None) -> bytes:
    """Added up votes of trees. ``strict``: a feature equal to the threshold is high.

    ``labelled``: the votes are logits of these classes; None: they are probabilities already.
    """
    classes = trees[0].votes.shape[1]
    if labelled is not None and len(labelled) < classes:
        trees = [*trees, _never(labelled, classes)]
    node = helper.make_node(
        TREES, ["features"], ["votes" if labelled is not None else "probabilities"], domain="ai.onnx.ml",
        n_targets=classes, **_nodes(trees, b"BRANCH_LT" if strict else b"BRANCH_LEQ"), **_targets(trees),
    )  # fmt: skip
    if labelled is None:
        return _model([node], dimension, classes, {})
    return _model([node, helper.make_node("Softmax", ["votes"], ["probabilities"], axis=1)], dimension, classes, {})


def _never(labelled: Sequence[int], classes: int) -> Tree:
    """A tree of one leaf that speaks against the classes that were not seen."""
    votes = np.where(np.isin(np.arange(classes), labelled), 0, ABSENT)[None].astype(np.float32)
    none = np.array([-1])
    return Tree(np.array([0]), np.zeros(1, np.float32), none, none, votes)


@dataclass(frozen=True, slots=True)
class Kernel:
    """exp(-|z - s|²) of components z and support vectors s, weighted and added up: a logit per class."""

    basis: Floats  # (dimension, k): z = features @ basis + shift
    shift: Doubles  # (k,)
    vectors: Floats  # (m, k)
    weight: Doubles  # (m, classes)
    bias: Doubles  # (classes,)


def kernel_model(kernel: Kernel) -> bytes:
    """In double precision throughout: |z - s|² is a small difference of large numbers."""
    vectors = kernel.vectors.astype(np.float64)
    constants: dict[str, NDArray[Any]] = {
        "basis": kernel.basis, "shift": kernel.shift, "vectors": np.ascontiguousarray(kernel.vectors.T),
        "lengths": np.einsum("ij,ij->i", vectors, vectors), "weight": kernel.weight, "bias": kernel.bias,
        "two": np.array(2.0), "zero": np.array(0.0),
    }  # fmt: skip
    double, single = {"to": TensorProto.DOUBLE}, {"to": TensorProto.FLOAT}
    steps: list[tuple[list[str], str, dict[str, Any]]] = [
        (["features"], "x", double), (["basis"], "wide_basis", double), (["x", "wide_basis"], "turned", {}),
        (["turned", "shift"], "z", {}),
        (["z"], "z_length", {"axes": [1], "keepdims": 1}), (["vectors"], "wide_vectors", double),
        (["z", "wide_vectors"], "product", {}), (["product", "two"], "twice", {}), (["twice", "z_length"], "part", {}),
        (["part", "lengths"], "distance", {}), (["distance", "zero"], "clipped", {}), (["clipped"], "kernel", {}),
        (["kernel", "weight"], "sum", {}), (["sum", "bias"], "logits", {}), (["logits"], "short", single),
        (["short"], "probabilities", {"axis": 1}),
    ]  # fmt: skip
    nodes = [helper.make_node(op, i, [o], **more) for op, (i, o, more) in zip(KERNEL, steps, strict=True)]
    return _model(nodes, len(kernel.basis), len(kernel.bias), constants)


def of_forest(estimators: Sequence[Any], classes: int, labelled: Sequence[int]) -> list[Tree]:
    """scikit-learn's trees; each leaf votes with its share of each class."""
    return [_of_sklearn(estimator.tree_, classes, labelled, len(estimators)) for estimator in estimators]


def _of_sklearn(tree: Any, classes: int, labelled: Sequence[int], trees: int) -> Tree:
    leaf = tree.children_left < 0
    shares = tree.value[:, 0, :]
    votes = np.zeros((len(leaf), classes), np.float32)
    votes[:, labelled] = np.where(leaf[:, None], shares / shares.sum(axis=1, keepdims=True) / trees, 0)
    feature, threshold = np.where(leaf, 0, tree.feature), np.where(leaf, 0, tree.threshold)
    return Tree(feature.astype(np.int64), rounded_down(threshold), tree.children_left, tree.children_right, votes)


def of_xgboost(saved: bytes, classes: int, labelled: Sequence[int]) -> list[Tree]:
    """XGBoost's own JSON: leaves keep their value where branches keep their threshold."""
    model = json.loads(saved)["learner"]["gradient_booster"]["model"]
    return [
        _of_columns(
            feature=np.array(tree["split_indices"], np.int64), values=np.array(tree["split_conditions"]),
            low=np.array(tree["left_children"], np.int64), high=np.array(tree["right_children"], np.int64),
            votes_for=(labelled[which], classes),
        )
        for tree, which in zip(model["trees"], model["tree_info"], strict=True)
    ]  # fmt: skip


def of_lightgbm(text: str, classes: int, labelled: Sequence[int]) -> list[Tree]:
    """LightGBM's own text: leaves are numbered apart from branches, and a link to one is its complement."""
    return [_of_text(fields, labelled[i % len(labelled)], classes) for i, fields in enumerate(_sections(text))]


def _sections(text: str) -> Iterator[dict[str, str]]:
    body = text.partition("end of trees")[0]
    for section in body.split("\nTree=")[1:]:
        yield dict(line.split("=", 1) for line in section.splitlines()[1:] if "=" in line)


def _of_text(fields: dict[str, str], vote: int, classes: int) -> Tree:
    leaves = _numbers(fields["leaf_value"])
    if len(leaves) == 1:  # nothing was worth a split
        none = np.array([-1])
        return _of_columns(feature=np.array([0]), values=leaves, low=none, high=none, votes_for=(vote, classes))
    low, high = (_linked(_numbers(fields[f"{side}_child"]), len(leaves)) for side in ("left", "right"))
    features, ends = _numbers(fields["split_feature"]), np.zeros(len(leaves))
    values = np.append(rounded_down(_numbers(fields["threshold"])), leaves)
    return _of_columns(
        feature=np.append(features, ends).astype(np.int64), values=values, low=low, high=high, votes_for=(vote, classes)
    )


def _linked(children: Doubles, leaves: int) -> Ints:
    """Leaf j, written as ~j, becomes the node after all branches and j leaves."""
    links = children.astype(np.int64)
    return np.append(np.where(links >= 0, links, len(links) + ~links), np.full(leaves, -1))


def _numbers(text: str) -> Doubles:
    return np.array(text.split(), dtype=np.float64)


def _of_columns(*, feature: Ints, values: NDArray[Any], low: Ints, high: Ints, votes_for: tuple[int, int]) -> Tree:
    """``votes_for``: the class that all of its leaves speak of, and how many there are."""
    leaf = low < 0
    votes = np.zeros((len(leaf), votes_for[1]), np.float32)
    votes[leaf, votes_for[0]] = values[leaf]
    threshold = np.where(leaf, 0, values).astype(np.float32)
    return Tree(np.where(leaf, 0, feature), threshold, low, high, votes)


def rounded_down(values: Doubles) -> Floats:
    """The largest float32 that is not above: float32 features lie on the same side of both."""
    near = values.astype(np.float32)
    return np.where(near > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)


def _nodes(trees: Sequence[Tree], branch: bytes) -> dict[str, Any]:
    sizes = [len(tree.low) for tree in trees]
    low, high = np.concatenate([t.low for t in trees]), np.concatenate([t.high for t in trees])
    return {
        "nodes_treeids": np.repeat(np.arange(len(trees)), sizes).tolist(),
        "nodes_nodeids": np.concatenate([np.arange(size) for size in sizes]).tolist(),
        "nodes_featureids": np.concatenate([t.feature for t in trees]).tolist(),
        "nodes_values": np.concatenate([t.threshold for t in trees]).tolist(),
        "nodes_modes": [LEAF if child < 0 else branch for child in low.tolist()],
        "nodes_truenodeids": np.maximum(low, 0).tolist(),
        "nodes_falsenodeids": np.maximum(high, 0).tolist(),
    }


def _targets(trees: Sequence[Tree]) -> dict[str, Any]:
    """One entry per leaf and class that it speaks of; a leaf that adds nothing says so once."""
    columns: list[tuple[Ints, Ints, Ints, Floats]] = []
    for number, tree in enumerate(trees):
        leaf = tree.low < 0
        speaks = (tree.votes != 0) & leaf[:, None]
        speaks[:, 0] |= leaf & ~speaks.any(axis=1)
        node, target = np.nonzero(speaks)
        columns.append((np.full(len(node), number), node, target, tree.votes[node, target]))
    tree_ids, node_ids, targets, weights = (np.concatenate(column).tolist() for column in zip(*columns, strict=True))
    return {
        "target_treeids": tree_ids, "target_nodeids": node_ids, "target_ids": targets, "target_weights": weights,
    }  # fmt: skip


def _model(nodes: Sequence[Any], dimension: int, classes: int, constants: dict[str, NDArray[Any]]) -> bytes:
    graph = helper.make_graph(
        nodes, "member",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, dimension])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid(domain, version) for domain, version in DOMAINS.items()]
    model = helper.make_model(graph, opset_imports=opsets, producer_name="labelloop", ir_version=IR_VERSION)
    return bytes(model.SerializeToString(deterministic=True))
