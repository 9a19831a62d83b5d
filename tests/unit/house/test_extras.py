"""What `pip install labelloop` alone can do, and what it says where a library of an extra is missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cli.terminal.edge import in_words
from labelloop.errors import MissingExtraError
from labelloop.extras import EXTRA_OF, extras_named

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = {"mlflow": "mlflow-skinny", "xgboost": "xgboost-cpu"}  # where a library's package has another name
WITHOUT = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {sorted(EXTRA_OF)}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


def run_without_extras(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT + code], capture_output=True, text=True, check=False, cwd=ROOT)


def test_each_library_is_brought_by_the_extra_that_is_named() -> None:
    extras = PROJECT["optional-dependencies"]
    for library, extra in EXTRA_OF.items():
        assert PACKAGES.get(library, library) in extras[extra]
        assert not any(line.startswith(library) for line in PROJECT["dependencies"])
    assert extras["all"] == [f"labelloop[{','.join(sorted(set(EXTRA_OF.values())))}]"]


@pytest.mark.parametrize(
    "modules",
    [
        "ml_backend.serve, ml_backend.app",
        "sync.__main__",
        "retrain_worker.__main__, retrain_worker.featurise, retrain_worker.refresh, retrain_worker.retrain, "
        "retrain_worker.score, retrain_worker.evidence.curve, retrain_worker.tidy, retrain_worker.training.fit",
        "cli.main",
    ],
)
def test_services_and_commands_start_without_extras(modules: str) -> None:
    ended = run_without_extras(f"import {modules}")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("code", "extra"),
    [
        ("import retrain_worker.tuning.search", "tune"),
        ("from labelloop.model.onnx_member import start; start(b'')", "ensemble"),
        ("import retrain_worker.report.page", "report"),
        ("import retrain_worker.report.attribution", "explain"),
        ("from retrain_worker.training.augment import SETS; SETS['light']()", "augment"),
        ("import cli.views.curve_plot", "report"),
    ],
)
def test_a_missing_extra_is_named_with_the_command_that_installs_it(code: str, extra: str) -> None:
    ended = run_without_extras(f"from labelloop.extras import extras_named\nwith extras_named():\n    exec({code!r})")
    message = ended.stderr.strip().splitlines()[-1]
    assert message.startswith("labelloop.errors.MissingExtraError: this needs ")
    assert message.endswith(f"which is not installed: pip install 'labelloop[{extra}]'")


def test_a_command_says_so_and_keeps_no_stack() -> None:
    error = ModuleNotFoundError("No module named 'optuna'", name="optuna.trial")
    assert in_words(error) == "this needs optuna, which is not installed: pip install 'labelloop[tune]'"
    assert "should not have happened" in str(in_words(ModuleNotFoundError("No module named 'x'", name="x")))


def test_any_other_import_error_stays_what_it_is() -> None:
    with pytest.raises(ModuleNotFoundError), extras_named():
        raise ModuleNotFoundError("No module named 'x'", name="x")
    with pytest.raises(MissingExtraError), extras_named():
        raise ModuleNotFoundError("No module named 'captum'", name="captum.attr")
