"""A YAML file that a person wrote in, plain values out: what YAML would take in another sense is refused in words."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import yaml

from labelloop.errors import SettingsError
from labelloop.names import encodable, shown

LARGEST = 1_000_000  # bytes
DEEPEST = 30  # levels: no setting lies deeper than five
MOST = 100_000  # values, with all that aliases stand for
KINDS = {"bool": "a boolean", "int": "a number", "float": "a number", "null": "nothing", "timestamp": "a date"}
Node = yaml.Node
Texts = Callable[[Node], Sequence[Node]]  # the nodes of a document that must be text, such as names of classes


def read_yaml(path: Path, *, texts: Texts = lambda _: ()) -> Any:
    """The values of one file, a mapping; SettingsError names the file, the line and what to write instead."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        what = f"cannot read {path}: {error.strerror}"
        raise SettingsError(f"{what}; name a YAML file, e.g. configs/digits.yaml") from error
    if len(data) > LARGEST:
        raise SettingsError(f"{path} has more than {LARGEST:,} bytes: is it a YAML file?")
    return parse_yaml(_text(data, path), str(path), texts=texts)


def parse_yaml(text: str, source: str, *, texts: Texts = lambda _: ()) -> Any:
    """The same from text."""
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # characters that no text holds
        raise SettingsError(f"{source} is not valid YAML: {_one_line(error)}") from error
    try:
        node = loader.get_single_node()
        if node is None or node.tag.endswith(":null"):
            raise SettingsError(f"{source} is empty: write settings into it, e.g. `name: pets`")
        if not isinstance(node, yaml.MappingNode):
            raise SettingsError(f"{source} is no list of settings: it must hold lines like `name: pets`")
        _size(node, {})
        for item in texts(node):
            _require_text(item)
        return loader.construct_document(node)
    except _Refused as error:
        raise SettingsError(f"{source}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-99-99
        raise SettingsError(f"{source} is not valid YAML: {_one_line(error)}") from error
    finally:
        loader.dispose()


def values_at(node: Node, *path: str) -> list[tuple[Node, Node]]:
    """The pairs of the mapping that stands under these keys; none where there is none."""
    for name in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        child = next((value for key, value in pairs if key.value == name), None)
        if child is None:
            return []
        node = child
    return list(node.value) if isinstance(node, yaml.MappingNode) else []


class _Refused(Exception):
    """Valid YAML that cannot be meant; with the line."""

    def __init__(self, node: Node, what: str) -> None:
        super().__init__(f"line {node.start_mark.line + 1}: {what}")


class _Loader(yaml.SafeLoader):
    """Refuses keys that stand twice (YAML would drop one in silence), and what lies too deep to be meant."""

    _depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        self._depth += 1
        try:
            if self._depth > DEEPEST:
                mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
                raise yaml.MarkedYAMLError(problem=f"it is nested more than {DEEPEST} levels deep", problem_mark=mark)
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        names: set[Hashable] = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, Hashable) and name in names:
                raise _Refused(key, f"{shown(str(key.value))} is given twice: keep one")
            if isinstance(name, Hashable):
                names.add(name)
        return super().construct_mapping(node, deep=deep)


def _text(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise SettingsError(
            f"{path} is not UTF-8 text: line {line} holds the byte 0x{data[error.start]:02x}. Save it as UTF-8, or "
            "name another file"
        ) from error


def _size(node: Node, sizes: dict[int, int]) -> int:
    """Values in all, counted again at every alias: a few lines can stand for billions."""
    if id(node) in sizes:
        if sizes[id(node)] < 0:
            raise _Refused(node, "an alias (*) stands within what it means")
        return sizes[id(node)]
    sizes[id(node)] = -1
    _require_plain(node)
    parts = [p for pair in node.value for p in pair] if isinstance(node, yaml.MappingNode) else node.value
    size = 1 + (sum(_size(part, sizes) for part in parts) if isinstance(node, yaml.CollectionNode) else 0)
    if size > MOST:
        raise _Refused(node, f"with its aliases (*) it stands for more than {MOST:,} values")
    sizes[id(node)] = size
    return size


def _require_plain(node: Node) -> None:
    """A set has no order, and bytes are no text: what JSON cannot hold is refused, and so are halves of characters."""
    prefix, _, kind = node.tag.rpartition(":")
    if prefix == "tag:yaml.org,2002" and kind in {"set", "omap", "pairs", "binary"}:
        raise _Refused(node, f"!!{kind} is no setting: write plain text, numbers, lists and mappings")
    if isinstance(node, yaml.ScalarNode) and node.value != encodable(node.value):
        raise _Refused(node, f"{shown(node.value)} holds half of a character (\\ud800 to \\udfff): delete it")


def _require_text(node: Node) -> None:
    kind = node.tag.rpartition(":")[2]
    if isinstance(node, yaml.ScalarNode) and kind in KINDS:
        word = node.value or "~"
        raise _Refused(node, f"{word} is {KINDS[kind]} in YAML: write '{word}'")


def _one_line(error: Exception) -> str:
    match error:
        case yaml.MarkedYAMLError(problem_mark=yaml.Mark() as mark):
            return f"line {mark.line + 1}: {error.problem}"
        case RecursionError():
            return "it is nested too deeply"
        case yaml.reader.ReaderError():
            return f"the character {error.position + 1} is a control character: is it a text file?"
    return str(error).partition(":")[0]
