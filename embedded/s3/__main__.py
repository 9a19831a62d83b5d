"""`python -m embedded.s3`: serves until SIGTERM. Everything it needs to know is in its environment.

AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: the one key. S3_BIND: address and port. S3_HOSTS: the names it goes by,
separated by commas; any where it is empty. S3_DATA_DIR, STATE_DIR: where things are kept. S3_BUCKET: a bucket to make,
where there is none.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource

import uvicorn

from embedded.s3.app import S3Guard
from embedded.s3.calls import Call
from embedded.s3.emulator import open_emulator
from embedded.s3.signature import Key


def main() -> None:
    """Serve, or end with an error that names the variable."""
    os.umask(0o077)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    env = os.environ
    key = Key(env.pop("AWS_ACCESS_KEY_ID", ""), env.pop("AWS_SECRET_ACCESS_KEY", ""))
    if not key.name or not key.secret:
        raise SystemExit("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: the key of this server is missing")
    perform = open_emulator()
    if bucket := env.get("S3_BUCKET"):
        perform(Call("PUT", bucket, "", {}, {}), b"")
    _open_many_files()
    _serve(S3Guard(key, _hosts(env.get("S3_HOSTS", "")), perform), env["S3_BIND"])


def _hosts(names: str) -> list[str]:
    return [name.strip().lower() for name in names.split(",") if name.strip()]


def _open_many_files() -> None:
    """A connection is a file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _serve(guard: S3Guard, bind: str) -> None:
    """HTTP/1.1 alone, read by h11, which takes nothing that could be read in two ways."""
    host, _, port = bind.rpartition(":")
    uvicorn.run(
        guard,
        host=host,
        port=int(port),
        http="h11",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=3,
    )


if __name__ == "__main__":
    main()
