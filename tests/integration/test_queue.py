"""Queue, leases and heartbeats on a real Valkey server, with a real worker process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from threading import Thread

import pytest

from labelloop.errors import LeaseLostError, QueueError
from labelloop.queue.connection import connect
from labelloop.queue.heartbeat import Heartbeat, alive
from labelloop.queue.jobs import REFRESH, JobQueue, job_id
from labelloop.queue.leases import HeldLease, RedisLease

WORKER = """
import sys, types
module = types.ModuleType("retrain_worker.jobs")
def refresh(project, seconds):
    import time
    from labelloop.queue.progress import JobProgress
    progress = JobProgress.of_job()
    for i in range(int(seconds * 10)):
        progress.report("working", i, int(seconds * 10))
        time.sleep(0.1)
    return {"ok": project}
module.refresh, module.lost_rows = refresh, dict
sys.modules["retrain_worker.jobs"] = module
from labelloop.queue.connection import connect
from retrain_worker.worker import run_worker
run_worker(connect(sys.argv[1], timeout_s=None), connect(sys.argv[1]), ["refresh"])
"""


@pytest.fixture
def queue(valkey_url: str) -> JobQueue:
    found = JobQueue(connect(valkey_url))
    found.redis.flushall()
    return found


def until(condition: Callable[[], bool], seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def start_worker(url: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WORKER, url])


def test_the_same_job_is_queued_once(queue: JobQueue) -> None:
    name = job_id(REFRESH, "p", "snapshot", 1)
    assert queue.enqueue(REFRESH, name, {"project": "p", "seconds": 0})
    assert not queue.enqueue(REFRESH, name, {"project": "p", "seconds": 0})
    assert queue.active(REFRESH, "p") == [name]
    assert queue.active(REFRESH, "other") == []
    assert queue.depths()["refresh"] == 1


def test_a_worker_runs_it_and_shows_progress(queue: JobQueue, valkey_url: str) -> None:
    worker = start_worker(valkey_url)
    try:
        assert until(lambda: any(name.startswith("worker:") for name in alive(queue.redis)))
        queue.enqueue(REFRESH, job_id(REFRESH, "p", 1), {"project": "p", "seconds": 1})
        assert until(lambda: any(j.status == "started" and j.step > 2 and j.eta_s for j in queue.jobs()))
        assert until(lambda: queue.active(REFRESH, "p") == [])
        assert [j for j in queue.jobs() if j.status == "failed"] == []
    finally:
        worker.terminate()
        worker.wait(10)
    assert until(lambda: not any(name.startswith("worker:") for name in alive(queue.redis)), 2)


def test_a_failed_job_says_why(queue: JobQueue, valkey_url: str) -> None:
    worker = start_worker(valkey_url)
    try:
        queue.enqueue(REFRESH, job_id(REFRESH, "p", 2), {"project": "p", "seconds": "ten"})
        assert until(lambda: any(j.status == "failed" and "ValueError" in j.error for j in queue.jobs()))
    finally:
        worker.terminate()
        worker.wait(10)


def test_an_ended_job_does_not_block_its_id(queue: JobQueue, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = start_worker(valkey_url)
    good, bad = job_id(REFRESH, "p", "good"), job_id(REFRESH, "p", "bad")
    try:
        queue.enqueue(REFRESH, good, {"project": "p", "seconds": 0})
        queue.enqueue(REFRESH, bad, {"project": "p", "seconds": "ten"})
        assert until(lambda: any(j.status == "failed" for j in queue.jobs()))
        assert queue.enqueue(REFRESH, good, {"project": "p", "seconds": 0})
        assert not queue.enqueue(REFRESH, bad, {"project": "p", "seconds": 0})  # not in a rush
        monkeypatch.setattr("labelloop.queue.jobs.FAILED_REST_S", 0)
        assert queue.enqueue(REFRESH, bad, {"project": "p", "seconds": 0})
        assert until(lambda: queue.active(REFRESH, "p") == [] and not any(j.status == "failed" for j in queue.jobs()))
    finally:
        worker.terminate()
        worker.wait(10)


def test_a_killed_workers_job_is_found_and_forgotten(queue: JobQueue, valkey_url: str) -> None:
    worker = start_worker(valkey_url)
    name = job_id(REFRESH, "p", 3)
    queue.enqueue(REFRESH, name, {"project": "p", "seconds": 60})
    assert until(lambda: any(j.status == "started" for j in queue.jobs()))
    assert queue.reap() == []  # it lives
    worker.send_signal(signal.SIGKILL)
    worker.wait(10)
    assert until(lambda: queue.reap() == [name], 25)
    assert queue.active(REFRESH, "p") == []
    assert queue.enqueue(REFRESH, name, {"project": "p", "seconds": 0})


def test_what_a_worker_writes_after_its_death_does_not_block_the_id(queue: JobQueue, valkey_url: str) -> None:
    """It was frozen: its job was taken away, and its last words make half a job of the same id."""
    worker = start_worker(valkey_url)
    name = job_id(REFRESH, "p", 4)
    queue.enqueue(REFRESH, name, {"project": "p", "seconds": 60})
    assert until(lambda: any(j.status == "started" for j in queue.jobs()))
    assert queue.at_work(REFRESH, "p") == {n.removeprefix("worker:") for n in alive(queue.redis)}
    worker.send_signal(signal.SIGSTOP)
    assert until(lambda: queue.reap() == [name], 25)
    assert queue.at_work(REFRESH, "p") == set()
    worker.send_signal(signal.SIGCONT)
    assert until(lambda: bool(queue.redis.exists(f"rq:job:{name}")))
    worker.kill()
    worker.wait(10)
    assert queue.enqueue(REFRESH, name, {"project": "p", "seconds": 0})


def test_a_lease_excludes_and_its_numbers_grow(queue: JobQueue) -> None:
    held: list[tuple[int, str]] = []

    def work() -> None:
        with RedisLease(queue.redis, "p")("deploy") as number:
            held.append((number, "in"))
            time.sleep(0.05)
            held.append((number, "out"))

    threads = [Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pairs = [held[i : i + 2] for i in range(0, 8, 2)]
    assert all(a[0] == b[0] and (a[1], b[1]) == ("in", "out") for a, b in pairs)
    assert [a[0] for a, _ in pairs] == sorted(a[0] for a, _ in pairs)


def test_a_lease_that_is_not_given_back_says_so(queue: JobQueue) -> None:
    with (
        RedisLease(queue.redis, "p")("deploy"),
        pytest.raises(LeaseLostError, match="somebody else"),
        RedisLease(queue.redis, "p", wait_s=0.1)("deploy"),
    ):
        pass


def test_one_watcher_at_a_time_and_the_next_one_takes_over(queue: JobQueue) -> None:
    one, other = HeldLease(queue.redis, "watcher", ttl_s=1), HeldLease(queue.redis, "watcher", ttl_s=1)
    assert one.hold()
    assert not other.hold()
    assert one.hold()
    one.release()
    assert other.hold()
    assert not one.hold()
    time.sleep(1.2)  # it died without a word
    assert one.hold()


def test_heartbeats_come_and_go(queue: JobQueue) -> None:
    heart = Heartbeat(queue.redis, "sync:test", {"leads": True})
    heart.start()
    assert until(lambda: alive(queue.redis).get("sync:test", {}).get("leads") is True)
    heart.stop()
    assert "sync:test" not in alive(queue.redis)


def test_a_lost_server_is_a_queue_error_that_says_what_to_do() -> None:
    with pytest.raises(QueueError, match="LABELLOOP_REDIS_URL"):
        JobQueue(connect("redis://127.0.0.1:9/0")).enqueue(REFRESH, "x", {})
