"""A PostgreSQL server for the time of a measurement, and Label Studio's settings for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from embedded import services
from embedded.ports import LOOPBACK, pick_port

ACCOUNT = "postgres"  # the server refuses to run as root


@contextmanager
def postgres(folder: Path) -> Iterator[None]:
    """Runs it, and makes every embedded Label Studio that is started meanwhile use it."""
    data, port, password = folder / "postgres", pick_port(), token_hex(16)
    _prepare(folder, data, password)
    _as_account("pg_ctl", "-D", str(data), "-w", "-l", str(data / "log"), "-o",
                f"-p {port} -c listen_addresses={LOOPBACK} -c unix_socket_directories={data}", "start")  # fmt: skip
    before = services.label_studio_settings
    services.label_studio_settings = lambda data, secrets: {
        **{n: v for n, v in before(data, secrets).items() if n not in services.ON_SQLITE},
        "DJANGO_DB": "default", "POSTGRE_USER": ACCOUNT, "POSTGRE_NAME": ACCOUNT,
        "POSTGRE_PASSWORD": password, "POSTGRE_HOST": LOOPBACK, "POSTGRE_PORT": str(port),
    }  # fmt: skip
    try:
        yield
    finally:
        services.label_studio_settings = before
        _as_account("pg_ctl", "-D", str(data), "-m", "fast", "stop")


def _prepare(folder: Path, data: Path, password: str) -> None:
    if data.exists():
        shutil.rmtree(data)
    data.mkdir(parents=True)
    secret = data.parent / "postgres-password"
    secret.write_text(password)
    for path in (data, secret):
        shutil.chown(path, ACCOUNT)
    for above in folder.resolve().parents:
        if above != Path("/") and above.stat().st_uid == os.getuid():
            above.chmod(above.stat().st_mode | 0o011)
    folder.chmod(folder.stat().st_mode | 0o011)
    _as_account("initdb", "-D", str(data), "-A", "scram-sha-256", f"--pwfile={secret}", "-E", "UTF8")


def _as_account(program: str, *words: str) -> None:
    found = shutil.which(program) or next(iter(sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))), program)
    subprocess.run(["runuser", "-u", ACCOUNT, "--", str(found), *words], check=True, stdout=subprocess.DEVNULL, cwd="/")
