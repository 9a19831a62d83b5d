"""Secrets that are replaced in their files count without a restart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from labelloop.config.settings import Settings, load_settings
from labelloop.errors import StorageError
from labelloop.objects.s3_client import s3_client
from labelloop.objects.storage import S3Store
from labelloop.queue.connection import FollowedPassword, redis_client


class Vault:
    """An S3 server that knows one key pair's name at a time."""

    def __init__(self) -> None:
        self.accepted, self.asked = "KEY1", list[str]()
        vault = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                key = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", ""))
                vault.asked.append(key.group(1) if key else "")
                right = vault.asked[-1] == vault.accepted
                body = b"data" if right else b"<Error><Code>InvalidAccessKeyId</Code></Error>"
                self.send_response(200 if right else 403)
                self.send_header("ETag", '"e"')
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Be quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def vault() -> Iterator[Vault]:
    vault = Vault()
    thread = Thread(target=vault.server.serve_forever, daemon=True)
    thread.start()
    yield vault
    vault.server.shutdown()
    vault.server.server_close()
    thread.join()


@pytest.fixture
def settings(tmp_path: Path, vault: Vault) -> Settings:
    (tmp_path / "access").write_text("KEY1\n")
    (tmp_path / "secret").write_text("secret-one\n")
    return load_settings(
        {
            "LABELLOOP_S3_ENDPOINT": vault.url,
            "LABELLOOP_S3_ACCESS_KEY_FILE": str(tmp_path / "access"),
            "LABELLOOP_S3_SECRET_KEY_FILE": str(tmp_path / "secret"),
        }
    )


def test_s3_keys_replaced_in_their_files_count_at_the_next_refusal(
    settings: Settings, vault: Vault, tmp_path: Path
) -> None:
    client = s3_client(settings)
    store = S3Store(client, "images")
    assert store.get("a") == b"data"
    (tmp_path / "access").write_text("KEY2")
    (tmp_path / "secret").write_text("secret-two")
    assert store.get("a") == b"data", "the server still takes the former key"
    vault.accepted = "KEY2"
    assert store.get("a") == b"data"
    assert vault.asked == ["KEY1", "KEY1", "KEY1", "KEY2"]
    client.close()


def test_refused_keys_that_nobody_replaced_are_not_tried_again(settings: Settings, vault: Vault) -> None:
    vault.accepted = "another"
    client = s3_client(settings)
    with pytest.raises(StorageError, match="InvalidAccessKeyId"):
        S3Store(client, "images").get("a")
    assert vault.asked == ["KEY1"]
    client.close()


def test_a_secret_that_cannot_be_read_stays_as_it_was(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "access").unlink()
    assert settings.reread() == settings
    (tmp_path / "access").write_text("")
    assert settings.reread() == settings
    (tmp_path / "access").write_text("KEY3")
    assert settings.reread() == replace(settings, s3_access_key="KEY3")


def test_the_first_line_is_the_current_password_and_the_others_still_count(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("new-password\nold-password\n")
    settings = load_settings({"LABELLOOP_BACKEND_PASSWORD_FILE": str(file)})
    assert settings.backend_password == "new-password"
    assert settings.backend_passwords == ("new-password", "old-password")
    file.write_text("new-password\n")
    assert settings.reread().backend_passwords == ("new-password",)


def test_redis_takes_user_and_password_from_the_file_at_each_connection(tmp_path: Path) -> None:
    file = tmp_path / "redis"
    file.write_text("redis://:one@127.0.0.1:6379/0")
    settings = load_settings({"LABELLOOP_REDIS_URL_FILE": str(file)})
    credentials = FollowedPassword(settings)
    assert credentials.get_credentials() == ("one",)
    file.write_text("redis://loop:t%40o@127.0.0.1:6379/0")
    assert credentials.get_credentials() == ("loop", "t@o")
    with redis_client(settings) as client:
        assert client.connection_pool.connection_kwargs.get("password") is None
        assert client.connection_pool.connection_kwargs["host"] == "127.0.0.1"


def test_secrets_are_listed_for_the_log_but_not_words() -> None:
    settings = load_settings(
        {
            "LABELLOOP_S3_ACCESS_KEY": "test",
            "LABELLOOP_S3_SECRET_KEY": "test",
            "LABELLOOP_REDIS_URL": "redis://:p%40ssword1@h/0",
            "LABELLOOP_STUDIO_TOKEN": "0123456789abcdef",
        }
    )
    assert settings.secrets == ("p%40ssword1", "p@ssword1", "0123456789abcdef")
    assert all(secret not in repr(settings) for secret in settings.secrets)
