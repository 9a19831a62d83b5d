"""Redis' password is replaced while clients work: the server takes both for a while, connections take the new one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from labelloop.config.settings import load_settings
from labelloop.queue.connection import redis_client
from labelloop.queue.jobs import REFRESH, JobQueue

USER, OLD, NEW = "rotated", "old-password", "new-password"


@pytest.fixture
def address(valkey_url: str) -> Iterator[str]:
    """A user of its own, so that the other tests keep theirs."""
    with Redis.from_url(valkey_url) as owner:
        owner.execute_command("ACL", "SETUSER", USER, "on", f">{OLD}", "~*", "&*", "+@all")
        yield f"{urlsplit(valkey_url).hostname}:{urlsplit(valkey_url).port}"
        owner.execute_command("ACL", "DELUSER", USER)


def test_clients_go_on_while_the_password_is_replaced(valkey_url: str, address: str, tmp_path: Path) -> None:
    file = tmp_path / "redis-url"
    file.write_text(f"redis://{USER}:{OLD}@{address}/0")
    settings = load_settings({"LABELLOOP_REDIS_URL_FILE": str(file)})
    with redis_client(settings) as client, Redis.from_url(valkey_url) as owner:
        queue = JobQueue(client)
        assert queue.enqueue(REFRESH, "refresh_rotation_1", {})
        owner.execute_command("ACL", "SETUSER", USER, f">{NEW}")
        file.write_text(f"redis://{USER}:{NEW}@{address}/0")
        owner.execute_command("ACL", "SETUSER", USER, f"<{OLD}")
        assert queue.enqueue(REFRESH, "refresh_rotation_2", {}), "the connection that is open"
        owner.execute_command("CLIENT", "KILL", "USER", USER)
        assert queue.enqueue(REFRESH, "refresh_rotation_3", {}), "a new one"
        for number in (1, 2, 3):
            owner.delete(f"rq:job:refresh_rotation_{number}")
        owner.delete("rq:queue:refresh")
    with Redis.from_url(f"redis://{USER}:{OLD}@{address}/0") as late, pytest.raises(AuthenticationError):
        late.ping()
