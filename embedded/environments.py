"""Virtual environments of the foreign servers, built with uv from hash-locked files beside this module.

Label Studio and the S3 server pin packages that our own environment needs in other versions. Needs nothing but uv
and the standard library, so that `make setup` can run it while our own environment is still being filled.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from labelloop.errors import StackError

HERE = Path(__file__).parent
DEFAULT_ROOT = HERE.parent / ".venvs"
MARKER = "labelloop.lock.sha256"
DATABASE = "label_studio.sqlite3"

Report = Callable[[str], None]
Tell = Callable[[str, str], None]  # which environment, what is done to it
OURS = "--ours"
READY = "ready"
LAST_STEP = {"label-studio": "preparing its database, usually 30 to 60 s"}
TICK_S = 8.0
USUAL = "usually 1 to 2 minutes where uv has the packages already, else 3 to 5, by the line"


@dataclass(frozen=True)
class Environments:
    """Where the foreign programs are.

    `database` is an empty, migrated Label Studio database: copying it saves the half minute that the migrations take.
    """

    label_studio_bin: Path
    s3_bin: Path
    database: Path


def ensure_environments(
    root: Path = DEFAULT_ROOT, report: Report = lambda _: None, *, ours: Path | None = None
) -> Environments:
    """Builds what is missing or out of date below `root`; instantaneous otherwise. StackError if a build fails.

    `ours`: our own source tree, whose `.venv` is filled at the same time.
    """
    environments = Environments(
        label_studio_bin=root / "label-studio" / "bin",
        s3_bin=root / "s3" / "bin",
        database=root / "label-studio" / DATABASE,
    )
    names = [name for name in ("label-studio", "s3") if not _is_current(root / name)]
    if not names and ours is None:
        return environments
    root.mkdir(parents=True, exist_ok=True)
    with _narrated(report, [*names, *(["labelloop"] if ours else [])]) as tell:
        builder = Builder(find_uv(), tell)
        with _one_builder(root), ThreadPoolExecutor(max_workers=3) as pool:
            finish = {"label-studio": _prepare_database, "s3": lambda _: None}
            builds = [pool.submit(builder.ensure, root / name, finish[name]) for name in names]
            builds += [pool.submit(builder.fill, ours)] if ours else []
            for build in builds:
                build.result()
    return environments


def ensure_environment(name: str, report: Report = lambda _: None, *, root: Path = DEFAULT_ROOT) -> Path:
    """The Python of one that only some people need, built on first use; StackError if that fails."""
    if not _is_current(root / name):
        root.mkdir(parents=True, exist_ok=True)
        with _narrated(report, [name]) as tell, _one_builder(root):
            Builder(find_uv(), tell).ensure(root / name, lambda _: None)
    return root / name / "bin" / "python"


@contextlib.contextmanager
def _narrated(report: Report, names: Sequence[str]) -> Iterator[Tell]:
    """Says what is built, every few seconds what is still being built, and each that is ready."""
    began, doing, ended = time.monotonic(), dict.fromkeys(names, "waiting"), threading.Event()

    def tell(name: str, what: str) -> None:
        doing[name] = what
        if what == READY:
            count = sum(w == READY for w in doing.values())
            report(f"{time.monotonic() - began:4.0f} s  {count} of {len(doing)} ready: {name}")

    def tick() -> None:
        while not ended.wait(TICK_S):
            rest = "; ".join(f"{name}: {what}" for name, what in doing.items() if what != READY)
            count = sum(what == READY for what in doing.values())
            report(f"{time.monotonic() - began:4.0f} s  {count} of {len(doing)} ready; {rest}")

    report(f"building {len(names)} environments, once ({', '.join(names)}): {USUAL}")
    ticker = threading.Thread(target=tick, name="narrator", daemon=True)
    ticker.start()
    try:
        yield tell
    finally:
        ended.set()
        ticker.join()


def lock_digest(name: str) -> str:
    """What the marker of a finished environment says: it changes with the lock and with the Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return hashlib.sha256((HERE / f"{name}.lock").read_bytes() + version.encode()).hexdigest()


def _is_current(place: Path) -> bool:
    try:
        return (place / MARKER).read_text().strip() == lock_digest(place.name)
    except OSError:
        return False


@contextlib.contextmanager
def _one_builder(root: Path) -> Iterator[None]:
    """Two starts at once must not build into the same folder: the second waits."""
    with (root / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def find_uv() -> str:
    """The uv program of our own environment; called before any thread, for sysconfig is not safe in several."""
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError) as error:  # a container has neither uv nor the embedded stack
        raise StackError(
            f"the program uv is missing ({error}): run `make setup`, or pip install 'labelloop[embedded]'"
        ) from error


@dataclass(frozen=True)
class Builder:
    """Builds one environment at a time per thread with one uv."""

    uv: str
    tell: Tell

    def ensure(self, place: Path, finish: Callable[[Path], None]) -> None:
        """Builds the environment at `place`, then lets `finish` complete it; nothing if it is current."""
        if not _is_current(place):
            shutil.rmtree(place, ignore_errors=True)  # a build that was killed leaves packages without their files
            self.install(place, HERE / f"{place.name}.lock")
            self.tell(place.name, LAST_STEP.get(place.name, "finishing"))
            finish(place)
            # last of all: only a complete environment has its marker
            (place / MARKER).write_text(lock_digest(place.name) + "\n")
        self.tell(place.name, READY)

    def install(self, place: Path, lock: Path) -> None:
        """A virtual environment at `place` with exactly the packages of `lock`; StackError repeats what uv said."""
        self.tell(place.name, f"fetching and installing {_packages(lock)} packages")
        run([self.uv, "venv", "--quiet", "--clear", "--no-project", "--python", sys.executable, str(place)])
        install = [self.uv, "pip", "sync", "--quiet", "--compile-bytecode", "--require-hashes"]
        run([*install, "--python", str(place / "bin" / "python"), str(lock)])

    def fill(self, ours: Path) -> None:
        """Our own environment, which this very process runs in."""
        lock = ours / "requirements.lock"
        self.tell("labelloop", f"fetching and installing {_packages(lock)} packages")
        # compiled once here, or every process compiles torch for itself where no bytecode may be written
        install = [self.uv, "pip", "install", "--quiet", "--python", str(ours / ".venv" / "bin" / "python")]
        run([*install, "--compile-bytecode", "--require-hashes", "-r", str(lock)])
        run([*install, "--no-deps", "-e", str(ours)])
        self.tell("labelloop", READY)


def _packages(lock: Path) -> int:
    return sum("==" in line for line in lock.read_text().splitlines())


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
    """Runs one step of a build; StackError with the end of its output if it fails."""
    result = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
    )
    if result.returncode:
        end = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        raise StackError(
            f"building an environment failed: `{' '.join(command[:3])}` ended with code {result.returncode}:\n"
            f"{end}\nCheck the network connection and the free disk space, then run the same command again;"
            " what was downloaded is kept."
        )


def _prepare_database(place: Path) -> None:
    """Runs Label Studio's migrations once, on an empty database that every new stack then copies."""
    python = place / "bin" / "python"
    manage = next(place.glob("lib/python3*/site-packages/label_studio/manage.py"), None)
    if manage is None:
        raise StackError(f"{place} has no label_studio/manage.py: check label-studio.lock")
    with tempfile.TemporaryDirectory(dir=place) as folder:
        env = {
            "PATH": os.defpath,
            "HOME": folder,
            "LABEL_STUDIO_BASE_DATA_DIR": folder,
            "DJANGO_DB": "sqlite",
            "DJANGO_SETTINGS_MODULE": "label_studio.core.settings.label_studio",
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "FRONTEND_SENTRY_DSN": "",
            "FEATURE_FLAGS_OFFLINE": "true",
        }
        run([str(python), str(manage), "migrate", "--no-color", "--verbosity", "0"], env=env)
        (Path(folder) / DATABASE).replace(place / DATABASE)


def main(arguments: Sequence[str]) -> int:
    """`python -m embedded.environments [ROOT]`; with `--ours` for `make setup`: our own environment, too."""
    rest = [word for word in arguments if word != OURS]
    root = Path(rest[0]) if rest else DEFAULT_ROOT
    ours = HERE.parent if OURS in arguments else None
    try:
        ensure_environments(root.absolute(), lambda line: print(line, flush=True), ours=ours)
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
