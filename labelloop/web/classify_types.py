"""What `POST /v1/classify` takes and gives. The backend reads and writes these types, the API's document shows them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from labelloop.web.problems import Problem

PATH = "/v1/classify"
MIB = 1024 * 1024
MAX_BODY = 32 * MIB
MAX_IMAGES = 32
MAX_TOP = 1000
MAX_URI = 2048


class ImageIn(BaseModel):
    """One image: its bytes in base64, or its address."""

    model_config = ConfigDict(extra="forbid")

    base64: str | None = Field(default=None, description="The file (JPEG, PNG, WebP, …) in base64.")
    uri: str | None = Field(
        default=None, max_length=MAX_URI, examples=["s3://images/digits/7.png"],
        description="An image of the project: where its images lie, or an upload that labelloop has copied. Nothing is "
        "fetched from the web.",
    )  # fmt: skip

    @model_validator(mode="after")
    def _one(self) -> ImageIn:
        if (self.base64 is None) == (self.uri is None):
            raise ValueError("give base64 or uri, one of them")
        return self


class Options(BaseModel):
    """What is wanted, beside the images."""

    model_config = ConfigDict(extra="forbid")

    project: str = Field(
        "", max_length=100, examples=["main-1-1767225600"],
        description="A project's key (`GET /v1/projects`). May be left out where the API key is for one project, or "
        "where there is only one.",
    )  # fmt: skip
    top_k: int = Field(3, ge=1, le=MAX_TOP, description="So many of the likeliest classes.")
    probabilities: bool = Field(False, description="Also the probability of every class.")


class ClassifyBody(Options):
    """Images as JSON."""

    model_config = ConfigDict(extra="forbid", title="ClassifyBody")

    images: Annotated[list[ImageIn], Field(min_length=1, max_length=MAX_IMAGES)]


class ClassifyForm(Options):
    """Images as files of a form."""

    model_config = ConfigDict(extra="forbid", title="ClassifyForm")

    image: Annotated[
        list[Annotated[Any, Field(json_schema_extra={"type": "string", "format": "binary"})]],
        Field(min_length=1, max_length=MAX_IMAGES, description="One file, or several under the same name."),
    ]


class Guess(BaseModel):
    """A class and how likely it is."""

    label: str
    probability: float = Field(ge=0, le=1)


class ClassifiedImage(BaseModel):
    """What the model says of one image, in the order of the request."""

    label: str | None = Field(description="The likeliest class; null where the model does not say, see `unsure`.")
    probability: float | None = Field(description="Of that class, calibrated.")
    unsure: str | None = Field(
        description="Why there is no label: `unlabelled-class`: it is likelier of a class that nobody has labelled "
        "yet. Null where there is one."
    )
    unlabelled_class: float | None = Field(description="How likely it is of a class that nobody has labelled yet.")
    top: list[Guess] = Field(description="The likeliest classes, best first.")
    probabilities: dict[str, float] | None = Field(default=None, description="Of every class, where asked for.")
    problem: Problem | None = Field(default=None, description="Why this image has no answer; the others have theirs.")


class Classification(BaseModel):
    """The answer. All images were seen by one version."""

    model_config = ConfigDict(title="Classification")

    project: str = Field(description="The project's key.")
    version: str = Field(description="The model version that answered.", examples=["v17"])
    backbone: str = Field(description="The network behind it.")
    images: list[ClassifiedImage]
