"""One case in, the answer of the command out."""

from __future__ import annotations

from dataclasses import dataclass

from typer.testing import CliRunner

from cli.main import app
from tests.edges.cases import Case
from tests.edges.world import Place, environment


@dataclass(frozen=True)
class Answered:
    """What a person sees."""

    code: int
    text: str  # lines joined: where a terminal breaks them says nothing
    raised: BaseException | None


def ask(place: Place, case: Case) -> Answered:
    """In this process, as the shell would call it."""
    own = {"HTML": f"{place.env['LABELLOOP_STUDIO_URL']}/html", "JSON": f"{place.env['LABELLOOP_STUDIO_URL']}/json"}
    changed = {name: own.get(value or "", value) for name, value in case.env.items()}
    with environment({**place.env, "COLUMNS": "200", "NO_COLOR": "1", **changed}):
        done = CliRunner().invoke(app, case.words(place.folder))
    text = " ".join(done.output.replace("│", " ").split())
    return Answered(done.exit_code, text, done.exception)
