"""ONNX bytes in, a function from features to probabilities out; nothing runs that has not been looked over.

Only three graphs are let in, the ones that `retrain_worker.heads.to_onnx` writes. ONNX can also name files to read
weights from, nest graphs, and point a tree at features that are not there, which the runtime would read past the end
of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labelloop.config.telemetry import tell_nobody
from labelloop.errors import CorruptArtefactError
from labelloop.extras import extras_named

if TYPE_CHECKING:
    import onnx

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
MemberRun = Callable[[Floats], Floats]  # (n, dimension) to (n, classes), rows sum to 1
Proto: TypeAlias = "onnx.ModelProto"

TREES = "TreeEnsembleRegressor"
BRANCHES = (b"BRANCH_LEQ", b"BRANCH_LT")
LEAF = b"LEAF"
KERNEL = (
    "Cast", "Cast", "MatMul", "Add",  # to principal components
    "ReduceSumSquare", "Cast", "MatMul", "Mul", "Sub", "Sub", "Min", "Exp",  # to kernel values
    "MatMul", "Add", "Cast", "Softmax",
)  # fmt: skip
GRAPHS = ((TREES,), (TREES, "Softmax"), KERNEL)
DOMAINS = {"": 17, "ai.onnx.ml": 3}  # versions of the operators that `to_onnx` writes
LARGEST_TREE = 1000  # nodes: the runtime walks a tree by recursion when it loads one
NODES = ("treeids", "nodeids", "featureids", "values", "modes", "truenodeids", "falsenodeids")
TARGETS = ("treeids", "nodeids", "ids", "weights")


def open_member(data: bytes, *, dimension: int, classes: int, threads: int = 1) -> MemberRun:
    """A member that is safe to run and gives probabilities; CorruptArtefactError otherwise."""
    run = start(_looked_over(data, dimension, classes), threads)
    try:
        probabilities = run(np.zeros((2, dimension), np.float32))
    except Exception as error:  # the runtime's errors have no base of their own
        raise CorruptArtefactError(f"a member of the ensemble cannot be run: {error}") from error
    if probabilities.shape != (2, classes) or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise CorruptArtefactError(f"a member of the ensemble gives no probabilities of {classes} classes")
    return run


def start(data: bytes, threads: int = 1) -> MemberRun:
    """Run ONNX bytes that are our own. One thread: no pool that a fork would lose, and sums in one order.

    Calls from several threads are safe and run beside each other.
    """
    tell_nobody()
    with extras_named():
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.enable_cpu_mem_arena = False  # it would keep the memory of the largest batch for good
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # the runtime's errors have no base of their own
        raise CorruptArtefactError(f"a member of the ensemble cannot be loaded: {error}") from error
    return lambda features: np.asarray(session.run(None, {"features": features})[0], dtype=np.float32)


def _looked_over(data: bytes, dimension: int, classes: int) -> bytes:
    """The same model without anything that we do not know."""
    with extras_named():
        import onnx
        from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise CorruptArtefactError(f"a member of the ensemble is no ONNX model: {error}") from error
    model.DiscardUnknownFields()
    _require(not (model.functions or model.training_info or model.graph.sparse_initializer), "holds unknown parts")
    _require({o.domain: o.version for o in model.opset_import} == DOMAINS, "asks for unknown operators")
    _check_constants(model)
    _check_ends(model, dimension)
    _check_nodes(model, dimension, classes)
    return bytes(model.SerializeToString())


def _check_constants(model: Proto) -> None:
    """Every number is in these bytes: none is read from a file."""
    for tensor in model.graph.initializer:
        inside = not tensor.external_data and tensor.data_location == tensor.DEFAULT
        _require(inside, "wants to read a file")


def _check_ends(model: Proto, dimension: int) -> None:
    ends = [*model.graph.input, *model.graph.output]
    _require([end.name for end in ends] == ["features", "probabilities"], "has unknown inputs or outputs")
    shape = ends[0].type.tensor_type.shape.dim
    _require(len(shape) == 2 and shape[1].dim_value == dimension, f"does not take {dimension} features")


def _check_nodes(model: Proto, dimension: int, classes: int) -> None:
    nodes = model.graph.node
    _require(tuple(node.op_type for node in nodes) in GRAPHS, "is none of the graphs we know")
    for node in nodes:
        _require(node.domain == ("ai.onnx.ml" if node.op_type == TREES else ""), "asks for unknown operators")
        _require(all(a.type in (a.INT, a.STRING, a.INTS, a.FLOATS, a.STRINGS) for a in node.attribute), "nests graphs")
    if nodes[0].op_type == TREES:
        _require(list(nodes[0].input) == ["features"], "looks at something else than the features")
        _check_trees(nodes[0].attribute, dimension, classes)


def _check_trees(attributes: Sequence[Any], dimension: int, classes: int) -> None:
    """Every node is reached from its root in one way, asks for a feature that is there and ends at a known class."""
    by_name = {a.name: a for a in attributes}
    names = {*(f"nodes_{n}" for n in NODES), *(f"target_{n}" for n in TARGETS), "n_targets"}
    _require(by_name.keys() == names and len(attributes) == len(names), "has other attributes than its trees need")
    _require(_even(by_name, "nodes", NODES) and _even(by_name, "target", TARGETS), "is cut short")
    numbers = [*by_name["nodes_values"].floats, *by_name["target_weights"].floats]
    _require(bool(np.isfinite(numbers).all()), "holds values that are not finite")
    modes = np.array(by_name["nodes_modes"].strings, dtype=object)
    leaf = modes == LEAF
    _require(bool((leaf | np.isin(modes, BRANCHES)).all()), "compares in unknown ways")
    _require(_within(_ints(by_name, "nodes_featureids"), dimension), f"asks for features beyond {dimension}")
    first = _roots(_ints(by_name, "nodes_treeids"), _ints(by_name, "nodes_nodeids"))
    _check_links(by_name, leaf, first)
    _require(by_name["n_targets"].i == classes, f"does not answer with {classes} classes")
    _require(_within(_ints(by_name, "target_ids"), classes), f"does not answer with {classes} classes")
    _check_votes(_ints(by_name, "target_treeids"), _ints(by_name, "target_nodeids"), leaf, first)


def _even(by_name: Mapping[str, Any], kind: str, names: Sequence[str]) -> bool:
    """Whether all lists of a kind are equally long."""
    lists = [(a.ints or a.floats or a.strings) for a in (by_name[f"{kind}_{name}"] for name in names)]
    return len({len(column) for column in lists}) == 1


def _roots(tree: Ints, number: Ints) -> Ints:
    """Where each tree begins: they stand one after the other, their nodes numbered from 0."""
    first = np.flatnonzero(number == 0)
    _require(len(first) > 0 and first[0] == 0, "has no tree")
    size = _sizes(first, len(tree))
    _require(int(size.max()) <= LARGEST_TREE, "has a tree that is too large")
    expected = np.repeat(np.arange(len(first)), size)
    _require(bool((tree == expected).all() and (number == np.arange(len(tree)) - first[tree]).all()), "is out of order")
    return first


def _check_links(by_name: Mapping[str, Any], leaf: Bools, first: Ints) -> None:
    """Children stand after their parent in its tree, so that no walk goes round; each has one parent."""
    branch = ~leaf
    tree, number = _ints(by_name, "nodes_treeids")[branch], _ints(by_name, "nodes_nodeids")[branch]
    sides = [_ints(by_name, f"nodes_{side}nodeids")[branch] for side in ("true", "false")]
    size = _sizes(first, len(leaf))
    _require(all(_within(s, size[tree]) and bool((s > number).all()) for s in sides), "has nodes that lead nowhere")
    parents = np.bincount(np.concatenate([first[tree] + s for s in sides]), minlength=len(leaf))
    parents[first] += 1
    _require(bool((parents == 1).all()), "has nodes with no parent or with two")


def _check_votes(tree: Ints, number: Ints, leaf: Bools, first: Ints) -> None:
    _require(_within(tree, len(first)), "answers from no tree")
    _require(_within(number, _sizes(first, len(leaf))[tree]), "answers from no node")
    _require(bool(leaf[first[tree] + number].all()), "answers from no leaf")


def _sizes(first: Ints, nodes: int) -> Ints:
    return np.asarray(np.diff(np.append(first, nodes)), dtype=np.int64)


def _ints(by_name: Mapping[str, Any], name: str) -> Ints:
    return np.array(by_name[name].ints, dtype=np.int64)


def _within(values: Ints, bound: int | Ints) -> bool:
    return bool(((values >= 0) & (values < bound)).all())


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise CorruptArtefactError(f"a member of the ensemble {problem}: it is not run")
