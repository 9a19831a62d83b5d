"""A person's view: a real browser sees the pre-selected choice and submits a correction."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from cli.embedded.state import running_stack
from tests.acceptance.conftest import Loop, until

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGE_MS = 60_000  # Label Studio's pages are heavy, and the machine may be small


@pytest.fixture
def page(loop: Loop) -> Iterator[Page]:
    stack = running_stack(loop.home)
    assert stack is not None
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.set_default_timeout(PAGE_MS)
        page.goto(f"{stack.studio_url}/user/login/")
        page.fill("input[name=email]", stack.secrets.studio_email)
        page.fill("input[name=password]", stack.secrets.studio_password)
        page.click("button[type=submit]")
        page.wait_for_url(re.compile("/projects|/$"))
        yield page
        browser.close()


def test_a_pre_selected_choice_is_seen_and_corrected(loop: Loop, page: Page) -> None:
    waiting = loop.studio.next_task(loop.project.id, loop.schema)  # a person keeps the task that is locked for them
    assert waiting is not None
    for _ in range(5):
        if waiting.seen is not None and waiting.seen.label is not None:
            break
        loop.submit(1)  # shown blind, as some are
        waiting = loop.studio.next_task(loop.project.id, loop.schema)
        assert waiting is not None
    assert waiting.seen is not None
    assert waiting.seen.label is not None
    page.goto(f"{loop.studio.url}/projects/{loop.project.id}/data")
    page.get_by_text("Label All Tasks").first.click()

    chosen = page.locator(".lsf-choice", has=page.locator("input:checked"))
    expect(chosen).to_have_count(1, timeout=PAGE_MS)
    expect(chosen).to_contain_text(waiting.seen.label)

    other = next(c for c in loop.schema.classes if c != waiting.seen.label)
    page.locator(".lsf-choice", has_text=re.compile(rf"^\s*{other}")).locator("input").check(force=True)
    page.get_by_role("button", name=re.compile("Submit")).first.click()

    def corrected() -> bool:
        rows = {row["id"]: row["annotations"] for row in loop.studio.export(loop.project.id)}
        return any(loop.schema.read(a["result"])[0] == other for a in rows.get(waiting.id, ()))

    until(corrected, what="the correction")
