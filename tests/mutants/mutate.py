"""One room's mutants, run by mutmut in the current directory; writes results.json. Started by `tests.mutants.run`.

Sentences are no rules: of strings, only those without a space (kinds, names, keys) are changed, in one way. Neither are
arguments that only say what holds anyway.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import libcst
from mutmut.__main__ import cli
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.mutation.mutators import mutation_operators, operator_arg_removal, operator_string
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

Operator = Callable[[Any], Iterable[libcst.CSTNode]]
SAID_ANYWAY = {"dtype", "strict"}


def _names_only(node: libcst.BaseString) -> Iterable[libcst.BaseString]:
    if isinstance(node, libcst.SimpleString) and " " not in node.value:
        yield from list(operator_string(node))[:1]


def _meant(call: libcst.Call) -> Iterable[libcst.Call]:
    said = [arg for arg in call.args if arg.keyword and arg.keyword.value in SAID_ANYWAY]
    for mutant in operator_arg_removal(call):
        if all(any(arg.deep_equals(kept) for kept in mutant.args) for arg in said):
            yield mutant


INSTEAD = {operator_string: _names_only, operator_arg_removal: _meant}


def _sampled(make: Operator, share: float) -> Operator:
    """Some of what an operator makes: the same for the same code."""

    def some(node: Any) -> Iterable[libcst.CSTNode]:
        for number, mutant in enumerate(make(node)):
            code = f"{number} {libcst.Module([]).code_for_node(mutant)}"
            if zlib.crc32(code.encode()) < share * 2**32:
                yield mutant

    return some


def _results() -> Iterable[dict[str, str]]:
    for path in walk_mutatable_files():
        data = SourceFileMutationData(path=path)
        data.load()
        for name, code in data.exit_code_by_key.items():
            status = status_by_exit_code[code]
            yield {"name": name, "status": status, "diff": "" if status == "killed" else get_diff_for_mutant(name)}


if __name__ == "__main__":
    children, share = sys.argv[1], float(sys.argv[2])
    mutation_operators[:] = [(kind, _sampled(INSTEAD.get(make, make), share)) for kind, make in mutation_operators]
    cli(["run", "--max-children", children], standalone_mode=False)
    Path("results.json").write_text(json.dumps(list(_results())))
