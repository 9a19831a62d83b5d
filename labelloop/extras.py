"""Libraries that not everybody needs: the extra that brings each, and what to say where it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from labelloop.errors import MissingExtraError

EXTRA_OF = {
    "captum": "explain",
    "kornia": "augment",
    "lightgbm": "ensemble",
    "matplotlib": "report",
    "mlflow": "track",
    "nncf": "export",
    "onnx": "ensemble",
    "onnxruntime": "ensemble",
    "onnxscript": "export",
    "optuna": "tune",
    "pyarrow": "parquet",
    "tensorboardX": "track",
    "xgboost": "ensemble",
}


def missing_extra(error: Exception) -> MissingExtraError | None:
    """The same in words, where an import failed for want of an extra."""
    library = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    extra = EXTRA_OF.get(library)
    if extra is None:
        return None
    return MissingExtraError(f"this needs {library}, which is not installed: pip install 'labelloop[{extra}]'")


@contextmanager
def extras_named() -> Iterator[None]:
    """MissingExtraError instead of an import error that names a library alone."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise (missing_extra(error) or error) from error
