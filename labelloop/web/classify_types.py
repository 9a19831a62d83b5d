"""What `POST /v1/classify` takes and gives. The backend reads and writes these types, the API's document shows them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from labelloop.web.problems import Problem

PATH = "/v1/classify"
MIB = 1024 * 1024
MAX_BODY = 32 * MIB
MAX_IMAGES = 32
MAX_TOP = 1000
MAX_URI = 2048
MAX_NEIGHBOURS = 20
MAX_MAPS = 4


class SentImage(BaseModel):
    """An image that comes with the request."""

    model_config = ConfigDict(extra="forbid", title="SentImage")

    base64: str = Field(description="The file (JPEG, PNG, WebP, …) in base64.")


class NamedImage(BaseModel):
    """An image of the project, by its address."""

    model_config = ConfigDict(extra="forbid", title="NamedImage")

    uri: str = Field(
        max_length=MAX_URI, examples=["s3://images/digits/7.png"],
        description="Where the project's images lie, or an upload that labelloop has copied. Nothing is fetched "
        "from the web.",
    )  # fmt: skip


def _kind_of(image: Any) -> str | None:
    """By the name of its one field."""
    names = set(image) if isinstance(image, dict) else set()
    return next((name for name in ("base64", "uri") if name in names), None)


ImageIn = Annotated[
    Annotated[SentImage, Tag("base64")] | Annotated[NamedImage, Tag("uri")],
    Discriminator(_kind_of, custom_error_type="image", custom_error_message="give base64 or uri, one of them"),
]


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
    neighbours: int = Field(
        0, ge=0, le=MAX_NEIGHBOURS, description="So many of the labelled images that are most like each image."
    )
    heat_map: bool = Field(
        False, description=f"Also where the model looks, for {MAX_MAPS} images at most: dozens of predictions for each."
    )


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


class Neighbour(BaseModel):
    """A labelled image that neither judges models nor is shown blind."""

    uri: str
    label: str
    likeness: float = Field(description="Cosine of the features; 1 for the same picture.")


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
    neighbours: list[Neighbour] | None = Field(
        default=None, description="Where asked for, the labelled images that are most like this one, best first."
    )
    heat_map: list[list[float]] | None = Field(
        default=None, description="Where asked for, 7 rows of 7: the probability that the likeliest class loses where "
        "that part of what the network sees is hidden.",
    )  # fmt: skip
    problem: Problem | None = Field(default=None, description="Why this image has no answer; the others have theirs.")


class Classification(BaseModel):
    """The answer. All images were seen by one version."""

    model_config = ConfigDict(title="Classification")

    project: str = Field(description="The project's key.")
    version: str = Field(description="The model version that answered.", examples=["v17"])
    backbone: str = Field(description="The network behind it.")
    images: list[ClassifiedImage]
