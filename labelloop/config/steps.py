"""What may be asked of preprocessing after the square: `backbone.steps` of a project's YAML. `pixel_steps` does it.

HSV as OpenCV has it: hue 0-179, the others 0-255.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Channel = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[Channel, Channel, Channel]


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gray(_Step):
    """Luminance in all three channels."""

    do: Literal["gray"]


class Blur(_Step):
    """Gaussian, ``kernel`` pixels wide; sigma follows from it where it is 0."""

    do: Literal["blur"]
    kernel: Annotated[int, Field(gt=0, le=99)] = 5
    sigma: Annotated[float, Field(ge=0)] = 0.0

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError(f"a kernel has a middle: {kernel} must be odd")
        return kernel


class Hsv(_Step):
    """Red, green, blue become hue, saturation, value."""

    do: Literal["hsv"]


class Mask(_Step):
    """What lies outside a range of colours becomes black. ``low`` and ``high`` in HSV, both included."""

    do: Literal["mask"]
    low: Colour
    high: Colour

    @model_validator(mode="after")
    def _ordered(self) -> Mask:
        if any(a > b for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"low {self.low} lies above high {self.high}: nothing would be left")
        return self


Step = Annotated[Gray | Blur | Hsv | Mask, Field(discriminator="do")]
