"""An exception in, a sentence for a person out: the last place before somebody would see a stack."""

from __future__ import annotations

import errno
import tempfile
import traceback

from typer.exceptions import Abort, Exit, TyperException

from labelloop.errors import LabelloopError
from labelloop.extras import missing_extra
from labelloop.logs import SecretMask
from labelloop.names import shown

REMEDIES = {  # of what the system refuses
    errno.ENOENT: "check the path, or create the folder",
    errno.EISDIR: "name a file in it",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.EEXIST: "choose another path, or move what is there",
    errno.EACCES: "choose another path, or change its permissions",
    errno.EPERM: "choose another path, or change its permissions",
    errno.EROFS: "choose a path on a writable disk",
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "free some space, or choose another disk",
    errno.ELOOP: "a symbolic link leads back to itself: choose another path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
}


def in_words(error: Exception) -> str | None:  # noqa: PLR0911
    """The message; None where the framework says it itself (usage, exit, a reader that has left)."""
    match error:
        case TyperException() | Exit() | Abort() | BrokenPipeError():
            return None
        case LabelloopError() | UnicodeEncodeError():
            return _sentence(error)
        case ModuleNotFoundError() if missing := missing_extra(error):
            return str(missing)
        case OSError() if error.errno is not None:
            return refused(error)
        case RecursionError():
            return f"the input is nested too deeply to be read. {_kept(error)}"
        case MemoryError():
            return "not enough memory: give it less to do, or use a larger machine"
    return f"this should not have happened: {type(error).__name__}: {error}. {_kept(error)}"


def _sentence(error: LabelloopError | UnicodeEncodeError) -> str:
    """Bytes that are no UTF-8 come from the shell, or from the name of a file."""
    if isinstance(error, LabelloopError):
        return str(error)
    return f"{shown(str(error.object))} is not UTF-8: correct what was typed, or rename it"


def refused(error: OSError) -> str:
    """What the system refused, where, and what to do."""
    where = f"{error.filename}: " if error.filename else "standard output: " if error.errno == errno.ENOSPC else ""
    remedy = REMEDIES.get(error.errno or 0)
    return f"{where}{error.strerror or error}" + (f"; {remedy}" if remedy else "")


def _kept(error: Exception) -> str:
    """The stack goes into a file, for those who maintain the program."""
    stack = SecretMask()("".join(traceback.format_exception(error)))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="labelloop-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(stack)
    except OSError:
        return "Report it with the command that you gave"
    return f"Report it with {file.name}, which says where it happened"
