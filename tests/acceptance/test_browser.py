"""A person's view: a real browser sees the pre-selected choice and submits a correction."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect, sync_playwright

from embedded.state import StackState, running_stack
from labelloop.labels.label_config import REQUIRED
from labelloop.records.tasks import Seen
from labelloop.store.snapshots import SnapshotStore
from labelloop.studio.client import NextTask
from operations.simulation.crew import recruit
from sync.project import TIDY_EVERY_S
from tests.acceptance.conftest import Loop, until

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PAGE_MS = 60_000  # Label Studio's pages are heavy, and the machine may be small


@pytest.fixture
def page(loop: Loop) -> Iterator[Page]:
    stack = running_stack(loop.home)
    assert stack is not None
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser_path, f"these tests drive a real browser: install one of {', '.join(BROWSERS)}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        signed_in(page, stack)
        yield page
        browser.close()


def signed_in(page: Page, stack: StackState) -> None:
    """As the owner of the embedded Label Studio."""
    page.set_default_timeout(PAGE_MS)
    page.goto(f"{stack.studio_url}/user/login/")
    page.fill("input[name=email]", stack.secrets.studio_email)
    page.fill("input[name=password]", stack.secrets.studio_password)
    page.click("button[type=submit]")
    page.wait_for_url(re.compile("/projects|/$"))


def waiting_with_a_pre_label(loop: Loop) -> tuple[NextTask, str]:
    """The owner's next task, which a person keeps once it is locked for them, and its pre-label."""
    for _ in range(5):
        task = loop.studio.next_task(loop.project.id, loop.schema)
        assert task is not None
        if task.prediction is not None and task.prediction.label is not None:
            return task, task.prediction.label
        loop.submit(1)  # shown blind, as some are
    pytest.fail("five tasks, and no pre-label")


def opened(loop: Loop, page: Page) -> Locator:
    """The stream in the browser; the choice that is selected."""
    page.goto(f"{loop.studio.url}/projects/{loop.project.id}/data")
    page.get_by_text("Label All Tasks").first.click()
    page.get_by_text("Labeling Instructions").wait_for()
    page.keyboard.press("Escape")
    chosen = page.locator(".lsf-choice", has=page.locator("input:checked"))
    expect(chosen).to_have_count(1, timeout=PAGE_MS)
    return chosen


def given(loop: Loop, task: int) -> list[str | None]:
    """Labels that the task has in Label Studio."""
    rows = {row["id"]: row["annotations"] for row in loop.studio.export(loop.project.id)}
    return [loop.schema.read(a["result"])[0] for a in rows.get(task, ())]


def shown_version(loop: Loop) -> str | None:
    """The version by whose order and pre-labels Label Studio goes."""
    return loop.studio.project(loop.project.id).model_version


def noted(loop: Loop, task: int) -> list[Seen | None]:
    """What its authors had before them, as the newest snapshot says."""
    store = SnapshotStore(loop.deployment.within(loop.project))
    latest = store.latest()
    found = store.load(latest.snapshot).tasks.get(task) if latest else None
    return [a.seen for a in found.annotations] if found else []


def test_a_pre_selected_choice_is_seen_and_corrected(loop: Loop, page: Page) -> None:
    waiting, pre_label = waiting_with_a_pre_label(loop)
    expect(opened(loop, page)).to_contain_text(pre_label)

    other = next(c for c in loop.schema.classes if c != pre_label)
    page.locator(".lsf-choice", has_text=re.compile(rf"^\s*{other}")).locator("input").check(force=True)
    page.get_by_role("button", name=re.compile("Submit")).first.click()
    until(lambda: other in given(loop, waiting.id), what="the correction")


def test_a_new_version_leaves_the_task_that_somebody_has_open(loop: Loop, page: Page) -> None:
    waiting, pre_label = waiting_with_a_pre_label(loop)
    chosen = opened(loop, page)
    before = shown_version(loop)

    colleague, spare = recruit(loop.deployment, 2)
    began = time.monotonic()
    while shown_version(loop) == before:  # the gate may hold one, or the batch lack a class
        assert time.monotonic() - began < PAGE_MS / 1000
        loop.submit(5, colleague)
        time.sleep(2)

    time.sleep(TIDY_EVERY_S + 2)  # as long as anybody looks at one image, while old versions are tidied away
    expect(chosen).to_contain_text(pre_label)
    again = loop.studio.next_task(loop.project.id, loop.schema)
    assert again is not None
    assert again.id == waiting.id
    page.get_by_role("button", name=re.compile("Submit")).first.click()
    until(lambda: given(loop, waiting.id) == [pre_label], what="the label as it was shown")

    until(lambda: noted(loop, waiting.id), what="the answer in a snapshot")
    [seen] = noted(loop, waiting.id)
    assert seen is not None
    assert waiting.prediction is not None
    assert (seen.version, seen.label, seen.blind) == (waiting.prediction.version, pre_label, False)
    for studio in (colleague, spare):
        studio.close()


def test_the_key_of_the_ticked_class_is_no_empty_answer_and_the_instruction_is_seen(loop: Loop, page: Page) -> None:
    waiting, pre_label = waiting_with_a_pre_label(loop)
    page.goto(f"{loop.studio.url}/projects/{loop.project.id}/data")
    page.get_by_text("Label All Tasks").first.click()
    for words in ("accepts it", "on purpose", "Close this window with Esc"):
        expect(page.get_by_text(words).first).to_be_visible(timeout=PAGE_MS)
    page.keyboard.press("Escape")
    expect(page.get_by_text("Labeling Instructions")).to_have_count(0)
    chosen = page.locator(".lsf-choice", has=page.locator("input:checked"))
    expect(chosen).to_contain_text(f"{pre_label}[{pre_label}]", timeout=PAGE_MS)  # its key is shown, too

    page.keyboard.press(pre_label)
    expect(chosen).to_have_count(0)
    page.keyboard.press("Enter")
    expect(page.get_by_text(REQUIRED)).to_be_visible()
    assert given(loop, waiting.id) == []

    page.get_by_role("button", name="OK").click()
    expect(page.get_by_text(REQUIRED)).to_have_count(0)
    page.keyboard.press(pre_label)
    expect(chosen).to_have_count(1)
    page.keyboard.press("Enter")
    until(lambda: given(loop, waiting.id) == [pre_label], what="the answer that Enter submits")
