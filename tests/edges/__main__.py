"""`python -m tests.edges`: every bad input with the answer of the command, to be read as a tired stranger would."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.edges.ask import ask
from tests.edges.cases import ALL
from tests.edges.world import place
from tests.integration.conftest import servers


@contextmanager
def _somewhere() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edges-") as name:
        yield Path(name)


def main() -> None:
    """Start what they need, ask, print."""
    with _somewhere() as folder, servers(folder) as (valkey, s3), place(folder / "given", valkey, s3) as here:
        for number, case in enumerate(ALL, 1):
            found = ask(here, case)
            variables = " ".join(f"{k}={v!r}" for k, v in case.env.items())
            print(f"{number:3}. {variables} labelloop {case.line}".replace("  ", " "))
            print(f"     [{found.code}] {found.text.replace(str(folder / 'given'), '{}')}\n")


if __name__ == "__main__":
    main()
