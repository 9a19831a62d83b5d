"""The queue's dashboard on a real Valkey: it shows, to who knows the password, and neither acts nor unpickles."""

from __future__ import annotations

import base64
import os
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from embedded.ports import LOOPBACK, pick_port
from labelloop.queue.connection import connect
from labelloop.queue.jobs import REFRESH, JobQueue

AUTH = ("labelloop", "password-of-the-dashboard")
CHANGES = ["/job/{job}/delete", "/job/{job}/requeue", "/requeue/refresh", "/queue/refresh/queued/empty",
           "/queue/refresh/compact"]  # fmt: skip


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (self.trace,)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def dashboard(valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    url = f"http://{LOOPBACK}:{pick_port()}"
    env = {**os.environ, "LABELLOOP_REDIS_URL": valkey_url, "LABELLOOP_DASHBOARD_URL": url,
           "LABELLOOP_DASHBOARD_PASSWORD": AUTH[1]}  # fmt: skip
    log = (tmp_path_factory.mktemp("dashboard") / "log").open("wb")
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--threads", "8", "--bind",
         url.removeprefix("http://"), "--no-control-socket", "labelloop.web.dashboard:create_app()"],
        env=env, stdout=log, stderr=log,
    )  # fmt: skip
    try:
        end = time.monotonic() + 60
        while not answers(url):
            assert time.monotonic() < end
            time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 401
    except httpx.TransportError:
        return False


@pytest.fixture
def queue(valkey_url: str) -> Iterator[JobQueue]:
    made = JobQueue(connect(valkey_url))
    made.redis.flushall()
    assert made.enqueue(REFRESH, "refresh_p_1", {"project": "p"})
    yield made
    made.redis.close()


def test_it_shows_the_queue_to_who_knows_the_password(dashboard: str, queue: JobQueue) -> None:
    with httpx.Client(base_url=dashboard, auth=AUTH) as client:
        queues = client.get("/0/data/queues.json").json()["queues"]
        assert {found["name"]: found["count"] for found in queues} == {"refresh": 1}
        for page in ("/", "/0/view/jobs", "/0/view/workers", "/0/view/job/refresh_p_1", "/0/data/workers.json"):
            assert client.get(page).status_code == 200
        files = re.findall(r'(?:src|href)="(/static/[^"]+)"', client.get("/").text)
        assert len(files) > 5
        assert {client.get(file).status_code for file in files} == {200}
        job = client.get("/0/data/job/refresh_p_1.json").json()
        assert '"project": "p"' in job["metadata"]
        jobs = client.get("/0/data/jobs/refresh/queued/8/asc/1.json").json()["jobs"]
        assert [found["id"] for found in jobs] == ["refresh_p_1"]


@pytest.mark.parametrize("auth", [None, ("labelloop", "wrong"), ("", ""), ("x", AUTH[1])])
@pytest.mark.parametrize("path", ["/", "/0/data/queues.json", "/static/x", "/0/data/job/refresh_p_1.json", "/nothing"])
def test_it_shows_nothing_to_others(dashboard: str, auth: tuple[str, str] | None, path: str) -> None:
    assert httpx.get(dashboard + path, auth=auth).status_code == 401


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [*CHANGES, "/", "/0/data/queues.json"])
def test_nothing_changes_the_queue_even_with_the_password(
    dashboard: str, queue: JobQueue, method: str, path: str
) -> None:
    url = dashboard + path.format(job="refresh_p_1")
    for headers, status in (({}, 405), ({"Origin": dashboard}, 405), ({"Origin": "http://evil.example"}, 403)):
        answer = httpx.request(method, url, auth=AUTH, headers=headers)
        assert answer.status_code == status
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert queue.active(REFRESH, "p") == ["refresh_p_1"]


@pytest.mark.parametrize("path", CHANGES)
def test_no_get_changes_the_queue(dashboard: str, queue: JobQueue, path: str) -> None:
    assert httpx.get(dashboard + path.format(job="refresh_p_1"), auth=AUTH).status_code in {404, 405}
    assert queue.active(REFRESH, "p") == ["refresh_p_1"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_name_that_somebody_led_here_is_refused(dashboard: str, host: str) -> None:
    assert httpx.get(dashboard, auth=AUTH, headers={"Host": host}).status_code == 403
    assert httpx.get(dashboard, auth=AUTH, headers={"Host": "localhost:1"}).status_code == 200


@pytest.mark.parametrize("field", ["meta", "data", "result"])
def test_a_pickle_in_the_queue_is_never_opened(dashboard: str, queue: JobQueue, tmp_path: Path, field: str) -> None:
    trace = tmp_path / "trace"
    bomb = pickle.dumps(Bomb(trace))
    queue.redis.hset("rq:job:refresh_p_1", field, bomb)
    if field == "result":
        queue.redis.xadd("rq:results:refresh_p_1", {"type": 1, "return_value": base64.b64encode(bomb).decode()})
    queue.redis.sadd("rq:workers", "rq:worker:w")
    queue.redis.hset("rq:worker:w", mapping={"queues": "refresh", "current_job": "refresh_p_1", "state": "busy"})
    pages = ["/0/view/job/refresh_p_1", "/0/data/job/refresh_p_1.json", "/0/data/jobs/refresh/queued/8/asc/1.json",
             "/0/data/workers.json", "/0/view/jobs", "/0/view/workers"]  # fmt: skip
    statuses = {page: httpx.get(dashboard + page, auth=AUTH).status_code for page in pages}
    assert not trace.exists()
    assert set(statuses.values()) <= {200, 500}
    assert statuses["/0/view/jobs"] == 200
    pickle.loads(bomb)
    assert trace.exists(), "the bomb itself was none"


def test_without_a_password_it_does_not_start(valkey_url: str) -> None:
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "LABELLOOP_REDIS_URL": valkey_url,
    }
    program = "from labelloop.web.dashboard import create_app; create_app()"
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False)
    assert done.returncode
    assert "LABELLOOP_DASHBOARD_PASSWORD is not set" in done.stderr


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_page_of_elsewhere_makes_no_browser_ask_for_the_password(dashboard: str, site: str) -> None:
    answer = httpx.get(dashboard, headers={"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors"})
    assert (answer.status_code, answer.headers.get("www-authenticate")) == (403, None)


def test_pages_cannot_be_framed_or_read_from_elsewhere(dashboard: str) -> None:
    answer = httpx.get(dashboard, auth=AUTH)
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "requeue-job-btn" in answer.text, "the buttons that do nothing are hidden"
