"""`python -m cli.embedded.s3`: serves until SIGTERM. Everything it needs to know is in its environment.

AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY: the one key. S3_BIND: address and port. S3_HOSTS: the names it goes by,
separated by commas; any where it is empty. S3_DATA_DIR, STATE_DIR: where things are kept. S3_BUCKET: a bucket to make,
where there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal

from hypercorn.asyncio import serve
from hypercorn.config import Config
from ministack.core.hypercorn_compat import install

from cli.embedded.s3.app import Guard
from cli.embedded.s3.calls import Call
from cli.embedded.s3.emulator import open_emulator
from cli.embedded.s3.signature import Key


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
    install()  # without it the clients of old cannot read "100 Continue"
    _open_many_files()
    asyncio.run(_serve(Guard(key, _hosts(env.get("S3_HOSTS", "")), perform), env["S3_BIND"]))


def _hosts(names: str) -> list[str]:
    return [name.strip().lower() for name in names.split(",") if name.strip()]


def _open_many_files() -> None:
    """A connection is a file."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _serve(guard: Guard, bind: str) -> None:
    config = Config()
    config.bind = [bind]
    config.keep_alive_timeout = 75
    config.loglevel = "WARNING"
    config.include_server_header = False
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await serve(guard, config, shutdown_trigger=stop.wait)  # type: ignore[arg-type, unused-ignore]


if __name__ == "__main__":
    main()
