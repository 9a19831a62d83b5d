"""The consoles: text is text, also while a page is live."""

from __future__ import annotations

import sys

import pytest
from rich.live import Live
from rich.text import Text

from cli.terminal.screen import Screen, show_json


def test_a_live_page_takes_what_is_printed_meanwhile(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen._force_terminal = True
    with Live(Text("page"), console=screen, auto_refresh=False) as live:
        print("printed meanwhile")
        live.update(Text("next [red]page[/]\x1b[2J"), refresh=True)
        assert screen.file is not sys.stdout
    printed = capsys.readouterr().out
    assert "printed meanwhile" in printed
    assert "next [red]page[/]�[2J" in printed


def test_json_is_valid_whatever_the_terminal_can_write(capsys: pytest.CaptureFixture[str]) -> None:
    show_json({"name": "é\udcff"})
    assert capsys.readouterr().out == '{"name": "\\u00e9\\udcff"}\n'
