"""A request of a stranger in, checked images and options out; ProblemError says what was wrong."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Request
from pydantic import ValidationError
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from labelloop.errors import ImageUnreadableError
from labelloop.web.classify_types import MAX_IMAGES, ClassifyBody, NamedImage, Options, SentImage
from labelloop.web.problems import ProblemError

FILES = "image"  # the name of the files in a form
TYPES = "send multipart/form-data with files called `image`, or application/json"
SHOWN = 3  # of the faults of a body


@dataclass(frozen=True, slots=True)
class GivenImage:
    """One image of a request: bytes, base64 that is decoded when its turn comes, or an address."""

    data: bytes | None = None
    text: str | None = None
    uri: str | None = None

    def bytes(self) -> bytes:
        """Of an image that was sent along; ImageUnreadableError where it is no base64."""
        if self.data is not None:
            return self.data
        try:
            return base64.b64decode(self.text or "", validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageUnreadableError("`base64` holds no base64 (standard alphabet, no line breaks)") from error


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request wants."""

    options: Options
    images: tuple[GivenImage, ...]


def wish_of(request: Request) -> Wish:
    """By the body's type; ProblemError (400, 413, 415, 422)."""
    if request.mimetype == "multipart/form-data":
        return _form(request)
    if request.mimetype == "application/json":
        return _json(request)
    raise ProblemError(415, TYPES)


def _json(request: Request) -> Wish:
    try:
        data = request.get_json()
    except (BadRequest, UnsupportedMediaType, RecursionError) as error:
        raise ProblemError(400, "the body is no valid JSON") from error
    body = _checked(ClassifyBody, data)
    return Wish(body, tuple(_given(image) for image in body.images))


def _given(image: SentImage | NamedImage) -> GivenImage:
    return GivenImage(text=image.base64) if isinstance(image, SentImage) else GivenImage(uri=image.uri)


def _form(request: Request) -> Wish:
    try:
        fields: dict[str, Any] = {name: _single(request, name) for name in request.form}
        files, others = request.files.getlist(FILES), set(request.files) - {FILES}
    except (ValueError, RecursionError) as error:  # of the parser: what is no form
        raise ProblemError(400, "the body is no valid form") from error
    if others or not files:
        raise ProblemError(422, f"files of the form are called `{FILES}`, and there must be one at least")
    if len(files) > MAX_IMAGES:
        raise ProblemError(422, f"{len(files)} images; a request may have {MAX_IMAGES}")
    return Wish(_checked(Options, fields), tuple(GivenImage(data=file.read()) for file in files))


def _single(request: Request, name: str) -> str:
    values = request.form.getlist(name)
    if len(values) > 1:
        raise ProblemError(422, "a field of the form was given twice")
    return values[0]


def _checked(model: type[Any], data: Mapping[str, Any] | Any) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ProblemError(422, faults(error)) from error
    except RecursionError as error:
        raise ProblemError(422, "the body is nested too deeply") from error


def faults(error: ValidationError) -> str:
    """Where and what, of the first few; never the value, which may be an image."""
    rows = [f"{'.'.join(str(part)[:40] for part in e['loc']) or 'body'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors(include_input=False, include_url=False)[:SHOWN]]  # fmt: skip
    return "; ".join(rows)
