"""A web page of another origin, and whoever has no credentials, get nothing out of any port of the embedded stack."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, sync_playwright

from embedded.state import StackState, running_stack
from tests.acceptance.conftest import LABELLOOP, Loop
from tests.acceptance.test_browser import BROWSERS, FLAGS, signed_in

# what a page can try: read, write, run, erase, on S3, on the cloud that once was around it, and on our services
TRIES = """
async (ports) => {
  const paths = ["/", "/labelloop", "/labelloop?list-type=2", "/images/a", "/health", "/metrics", "/versions",
    "/_ministack/health", "/_ministack/reset", "/_localstack/health", "/2015-03-31/functions", "/?Action=ListUsers",
    "/0/data/queues.json", "/job/x/delete", "/requeue/refresh", "/queue/refresh/queued/empty", "/webhook", "/predict",
    "/api/projects", "/api/users", "/api/current-user/whoami", "/api/dm/actions?id=delete_tasks&project=1",
    "/api/projects/1/next", "/user/login/"];
  const forms = {"Content-Type": "application/x-www-form-urlencoded"};
  const ways = [
    {method: "GET"}, {method: "HEAD"}, {method: "POST", headers: forms, body: "Action=CreateUser&title=stolen"},
    {method: "POST", body: JSON.stringify({title: "stolen", project: 1})}, {method: "PUT", body: "stolen"},
    {method: "DELETE"}, {method: "PATCH", body: "{}"},
    {method: "POST", headers: {"X-Amz-Target": "DynamoDB_20120810.ListTables"}, body: "{}"},
    {method: "GET", headers: {"Authorization": "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request"}},
  ];
  const one = async (port, path, way, credentials) => {
    try {
      const signal = AbortSignal.timeout(20000);
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, {...way, credentials, signal, cache: "no-store"});
      return `${way.method} ${port}${path} (${credentials}): ${answer.status} ${(await answer.text()).slice(0, 80)}`;
    } catch { return null; }  // the browser shows a page nothing of what may not be read
  };
  const blind = (port, path, way, credentials) =>
    fetch(`http://127.0.0.1:${port}${path}`, 
      {method: way.method, body: way.body, mode: "no-cors", credentials, signal: AbortSignal.timeout(20000)})
      .catch(() => null);
  const read = [];
  for (const port of ports) for (const path of paths) {
    const tried = ways.flatMap(way => ["omit", "include"].map(c => one(port, path, way, c)));
    read.push(...await Promise.all(tried));
    const simple = ways.filter(way => ["GET", "POST"].includes(way.method) && !(way.headers || {})["X-Amz-Target"]);
    await Promise.all(simple.flatMap(way => ["omit", "include"].map(c => blind(port, path, way, c))));
  }
  return {read: read.filter(Boolean), tries: read.length};
}
"""


class Evil(BaseHTTPRequestHandler):
    """A page that means no good; what it does is told by the test."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<title>evil</title>")

    def log_message(self, *_: object) -> None:
        """Is quiet."""


class OpenDoor(Evil):
    """As the S3 server was: any page may read."""

    def end_headers(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


@pytest.fixture(scope="module")
def evil() -> Iterator[int]:
    """The port of the page's own server."""
    yield from serving(Evil)


@pytest.fixture(scope="module")
def open_door() -> Iterator[int]:
    yield from serving(OpenDoor)


def serving(kind: type[Evil]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def stack(loop: Loop) -> StackState:
    found = running_stack(loop.home)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def page(stack: StackState) -> Iterator[Page]:
    """In the browser of a person who is signed in to Label Studio."""
    browser_path = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert browser_path, f"these tests drive a real browser: install one of {', '.join(BROWSERS)}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        page = browser.new_context().new_page()
        signed_in(page, stack)
        yield page
        browser.close()


def held(loop: Loop) -> dict[str, Any]:
    """What a stranger could have changed, and the loop at rest does not."""
    s3, call, images = loop.deployment.s3, loop.studio.http.call, loop.deployment.settings.image_buckets[0]
    projects = call("GET", "api/projects", params={"page_size": 100})["results"]
    storages = call("GET", "api/storages/s3", params={"project": loop.project.id})
    return {
        "buckets": [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]],
        "images": [(item["Key"], item["ETag"]) for item in s3.list_objects_v2(Bucket=images)["Contents"]],
        "records": [record.key for record in loop.deployment.projects.all()],
        "users": sorted(user["email"] for user in call("GET", "api/users")),
        "projects": sorted((found["id"], found["title"], found["task_number"]) for found in projects),
        "storages": [(found["id"], found["bucket"], found["s3_endpoint"]) for found in storages],
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # of the same site (cookies go along), and of another
def test_a_page_of_another_origin_reads_nothing_and_changes_nothing(
    loop: Loop, stack: StackState, page: Page, evil: int, open_door: int, host: str
) -> None:  # fmt: skip
    before = held(loop)
    page.goto(f"http://{host}:{evil}/")
    assert page.evaluate(TRIES, [open_door])["read"], "the browser itself keeps the page from trying"
    ports = [port for port in asdict(stack.ports).values() if port != stack.ports.valkey]
    found = page.evaluate(TRIES, ports)
    assert found["tries"] > 1000
    assert found["read"] == []
    assert held(loop) == before


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_form_and_a_frame_of_another_origin_reach_nothing(
    loop: Loop, stack: StackState, page: Page, evil: int, host: str
) -> None:
    before = held(loop)
    for target in ("/api/projects", "/api/projects/1/", "/api/users"):
        assert answered(page, f"http://{host}:{evil}/", FORM, stack.studio_url + target) == 403
    assert answered(page, f"http://{host}:{evil}/", FRAME, f"{stack.studio_url}/projects") == 403
    assert held(loop) == before


FORM = """(url) => { document.body.innerHTML = `<form method=post action="${url}"><input name=title value=stolen>
    </form>`; document.forms[0].submit() }"""
FRAME = "(url) => { document.body.innerHTML = `<iframe src='${url}'>` }"


def answered(page: Page, start: str, script: str, url: str) -> int:
    """The status of what a page's script has made the browser ask for, in a tab of its own."""
    tab = page.context.new_page()
    tab.goto(start)
    with tab.expect_response(lambda answer: answer.url.startswith(url)) as answer:
        tab.evaluate(script, url)
    tab.wait_for_load_state()
    return answer.value.status


def test_label_studio_works_for_the_person_beside_such_a_page(stack: StackState, page: Page) -> None:
    page.goto(f"{stack.studio_url}/projects")
    page.get_by_text("digits").first.wait_for()


def test_the_dashboard_shows_the_queue_to_the_person_and_no_button_that_acts(stack: StackState, page: Page) -> None:
    assert page.context.browser is not None
    known = {"username": stack.secrets.dashboard_user, "password": stack.secrets.dashboard_password}
    context = page.context.browser.new_context(http_credentials=known)  # type: ignore[arg-type]
    board = context.new_page()
    board.goto(stack.dashboard_url)
    board.locator("td", has_text="features").first.wait_for()
    for registry, button in (("queued", "#compact-btn"), ("failed", "#requeue-all-btn")):
        board.goto(f"{stack.dashboard_url}/0/view/jobs/features/{registry}/10/asc/1")
        assert board.locator(button).count() == 1
        assert not board.locator(button).is_visible()
    context.close()


PROBES = [
    (method, path)
    for path in ("/", "/labelloop", "/labelloop?list-type=2", "/images", "/_ministack/reset", "/2015-03-31/functions",
                 "/predict", "/setup", "/metrics", "/versions", "/0/data/queues.json", "/requeue/refresh",
                 "/queue/refresh/queued/empty", "/api/projects", "/api/users", "/api/tasks", "/api/token")
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS")
]  # fmt: skip


@pytest.mark.parametrize("host", [None, "evil.example"])
def test_who_has_no_credentials_reads_nothing_and_changes_nothing(
    loop: Loop, stack: StackState, host: str | None
) -> None:
    before, told = held(loop), list[str]()
    ports = asdict(stack.ports)
    for name in ("s3", "backend", "dashboard", "label_studio"):
        for method, path in PROBES:
            headers = {} if host is None else {"Host": host}
            url = f"http://127.0.0.1:{ports[name]}{path}"
            answer = httpx.request(method, url, headers=headers, content=b"Action=x" if method == "POST" else None)
            login = name == "label_studio" and answer.status_code in {200, 302} and path == "/"
            preflight = name == "label_studio" and method == "OPTIONS" and not answer.content
            blank = name == "label_studio" and path == "/metrics" and not answer.content  # an empty page, by design
            if answer.status_code < 400 and not (login or preflight or blank):
                told.append(f"{method} {name}{path}: {answer.status_code} {answer.text[:80]}")
            assert "access-control-allow-origin" not in answer.headers
    assert told == []
    assert held(loop) == before


def test_a_wrong_secret_is_refused_by_s3_and_found_by_the_doctor(loop: Loop, stack: StackState) -> None:
    wrong = {
        "LABELLOOP_STUDIO_URL": stack.studio_url, "LABELLOOP_STUDIO_TOKEN": stack.secrets.studio_token,
        "LABELLOOP_S3_ENDPOINT": stack.s3_endpoint, "LABELLOOP_S3_ACCESS_KEY": stack.secrets.s3_access_key,
        "LABELLOOP_S3_SECRET_KEY": "test", "LABELLOOP_REDIS_URL": stack.redis_url,
    }  # fmt: skip
    elsewhere = _doctor(loop.home / "no-stack", wrong)
    assert elsewhere["the state bucket"]["level"] == "wrong"
    assert "403" in elsewhere["the state bucket"]["found"]
    here = _doctor(loop.home, {"LABELLOOP_S3_SECRET_KEY": "test"})
    assert here["the stack's own"]["level"] == "wrong"
    assert "LABELLOOP_S3_SECRET_KEY" in here["the stack's own"]["found"]
    assert here["the state bucket"]["level"] == "ok", "the command itself takes the stack's"


def _doctor(home: Any, environment: dict[str, str]) -> dict[str, dict[str, str]]:
    done = subprocess.run([LABELLOOP, "doctor", "--json", "--state-dir", home], env={**os.environ, **environment},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1, done.stderr
    return {found["what"]: found for found in json.loads(done.stdout)}
