"""What commands answer to bad inputs: words that name the bad thing and the remedy, and never a stack."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.edges.ask import ask
from tests.edges.cases import ALL, Case
from tests.edges.world import Place, place

UNEXPECTED = "this should not have happened"  # the last resort: every case here has words of its own


@pytest.fixture(scope="module")
def here(valkey_url: str, s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("edges"), valkey_url, s3_endpoint) as found:
        yield found


def test_there_are_many_and_no_two_the_same() -> None:
    assert len({(case.line, *case.env.items()) for case in ALL}) == len(ALL) >= 100


@pytest.mark.parametrize("case", ALL, ids=lambda case: f"{case.line} {' '.join(map(str, case.env))}".strip()[:80])
def test_a_bad_input_is_answered_in_words(here: Place, case: Case) -> None:
    answer = ask(here, case)
    assert "Traceback" not in answer.text
    assert UNEXPECTED not in answer.text
    assert isinstance(answer.raised, SystemExit | None)
    for words in case.says:
        assert words in answer.text
    assert answer.code == case.code


def run(here: Place, line: str, **more: str) -> subprocess.CompletedProcess[bytes]:
    """As a process of its own, through a shell."""
    command = f"{sys.executable} -m cli.main"
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path.cwd()), **here.env, **more}
    return subprocess.run(
        ["/bin/bash", "-c", line.replace("labelloop", command).replace("{}", str(here.folder))],
        env=env, capture_output=True, check=False, timeout=120,
    )  # fmt: skip


SHELLS = (
    ("labelloop models --json | head -c 1", 0, {}, ""),
    ("labelloop doctor --json | head -c 1", 0, {}, "["),
    ("labelloop doctor --json > /dev/full", 1, {}, "No space left on device"),
    ("labelloop models >&-", 0, {}, ""),
    ("labelloop models > /dev/full", 1, {}, "No space left on device"),
    ("labelloop models", 0, {"COLUMNS": "1"}, ""),
    ("labelloop runs", 0, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}, ""),
    ("labelloop duplicates --json", 0, {"PYTHONIOENCODING": "ascii"}, ""),
    ("labelloop models --project $'\\xff\\x1b[31m'", 1, {}, "no project is called"),
    ("labelloop export --format csv --out {}/x.csv --at $'\\xff'", 1, {}, "is not UTF-8: correct what was typed"),
    ("labelloop init --config $'{}/\\xff.yaml' --image-uri s3://edge-images/x/", 1, {}, "No such file"),
    ("labelloop simulate --state-dir {}/file < /dev/null", 1, {}, "is no folder"),
    ("labelloop schema --drop cat < /dev/null", 1, {}, "--yes"),
)


@pytest.mark.parametrize(("line", "code", "env", "says"), SHELLS, ids=[shell[0] for shell in SHELLS])
def test_a_shell_may_do_what_it_likes_with_a_command(
    here: Place, line: str, code: int, env: dict[str, str], says: str
) -> None:
    done = run(here, line, **env)
    told = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
    assert "Traceback" not in told
    assert "Exception ignored" not in told
    assert "\x1b" not in told
    assert says in " ".join(told.split())
    assert done.returncode == code
