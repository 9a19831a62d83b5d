"""The value report in, a page for a terminal out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from labelloop.rules.intervals import Interval
from labelloop.rules.value.figures import Anchoring, AnswerTimes, Checked, ClassOverrides, Rate
from labelloop.rules.value.report import Person
from operations.models.value import Page, Warned

ROWS = 20  # classes, people
NOT_ENOUGH = "not enough yet"


def render(page: Page) -> RenderableType:
    """The whole page."""
    parts: list[RenderableType] = [_warning(w) for w in page.warnings]
    parts.append(Panel(_figures(page), title=Text(page.title), title_align="left"))
    if page.value.people:
        parts.append(Panel(_people(page), title="people", title_align="left"))
    if page.value.classes:
        parts.append(Panel(_classes(page.value.classes), title="pre-labels overridden, by class", title_align="left"))
    return Group(*parts)


def _warning(warned: Warned) -> Panel:
    lines = [Text(warned.headline, style="bold"), *(Text(r) for r in warned.reasons), Text(warned.advice)]
    return Panel(Group(*lines), title="accepted without looking?", title_align="left", border_style="yellow")


def _figures(page: Page) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for name, text in _rows(page):
        grid.add_row(name, text)
    return grid


def _rows(page: Page) -> Iterator[tuple[str, RenderableType]]:
    value = page.value
    yield "answers", Text(_answers(page.answers, value.looks))
    yield "time", _times(value.times)
    yield "saved", _saved(value.times)
    yield "seeing it", _anchoring(value.anchoring, page.blind)
    yield "model", _model(value.drawn)
    yield "people right", _checked(value.checked)


def _answers(answers: int, with_prediction: int) -> str:
    if answers and answers == with_prediction:
        return f"{answers} answers, all with a prediction"
    return f"{answers} answers, {with_prediction} with a prediction"


def _times(times: AnswerTimes) -> Text:
    if times.shown is None or times.hidden is None:
        return Text(f"{NOT_ENOUGH}: needs answers with and without a pre-label", style="dim")
    return Text(f"{times.shown:.1f} s with a pre-label, {times.hidden:.1f} s without (medians, chosen images)")


def _saved(times: AnswerTimes) -> Text:
    if times.saved is None:
        return Text(f"{NOT_ENOUGH}: needs five chosen images without a pre-label from one person", style="dim")
    rest = f"; {times.left_out} answers of other people are left out" if times.left_out else ""
    return Text(f"{_interval(times.saved, '{:.0f}')} minutes up to now, over {times.people} people{rest}")


def _anchoring(anchoring: Anchoring, blind: float) -> Text:
    if anchoring.effect is None:
        why = "queue.blind is 0" if not blind else f"{blind:.0%} of the chosen images are shown without a pre-label"
        return Text(f"{NOT_ENOUGH}: {why}", style="dim")
    points = Interval(*(100 * x for x in (anchoring.effect.value, anchoring.effect.low, anchoring.effect.high)))
    return Text.assemble(
        f"people agree with the model on {_share(anchoring.shown)} with a pre-label, on {_share(anchoring.hidden)} "
        f"without: ", (f"{_interval(points, '{:+.0f}')} points", "bold"),
    )  # fmt: skip


def _model(drawn: Rate) -> Text:
    if drawn.share is None:
        return Text(f"{NOT_ENOUGH}: no random image is labelled", style="dim")
    return Text(f"right on {_share(drawn)} of the images drawn at random, as people say who did not see its answer")


def _checked(checked: Checked) -> Text:
    corrected = checked.corrected_shown.hits + checked.corrected_blind.hits
    if not (checked.shown.of or checked.blind.of or corrected):
        return Text("not known: no ground truth, second answer or correction by somebody else", style="dim")
    return Text(
        f"where a second person answered: {_share(checked.shown)} with a pre-label, {_share(checked.blind)} without; "
        f"corrected since: {_share(checked.corrected_shown)} and {_share(checked.corrected_blind)}"
    )


def _people(page: Page) -> Table:
    table = Table("who", "answers", "overrides", "same as the model, unseen", "s shown", "s blind", "", box=None)
    rows = page.value.people
    for person in rows[:ROWS]:
        table.add_row(
            page.names[person.who], str(person.looks), _share(person.overrides), _share(person.blind),
            _seconds(person.seconds_shown), _seconds(person.seconds_blind), _note(person),
        )  # fmt: skip
    _more(table, len(rows))
    return table


def _note(person: Person) -> Text:
    evidence = person.evidence
    if evidence.named:
        return Text("see above", style="yellow")
    if evidence.noticed:
        return Text(f"warned after {evidence.noticed} answers, fine since", style="dim")
    return Text()


def _classes(rows: tuple[ClassOverrides, ...]) -> Table:
    table = Table("pre-label", "overridden", "most often by", box=None)
    for row in rows[:ROWS]:
        instead = f"{row.instead} ({row.times})" if row.instead else ""
        table.add_row(row.name, _share(row.overrides), instead)
    _more(table, len(rows))
    return table


def _more(table: Table, rows: int) -> None:
    if rows > ROWS:
        table.add_row(f"{rows - ROWS} more: --json", style="dim")


def _share(rate: Rate) -> str:
    """E.g. 12 % (3 of 25; 4-30)."""
    if rate.share is None:
        return "none"
    return f"{rate.share:.0%} ({rate.hits} of {rate.of}; {100 * rate.low:.0f}–{100 * rate.high:.0f})"


def _interval(interval: Interval, form: str) -> str:
    value, low, high = (form.format(x) for x in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.1f}"
