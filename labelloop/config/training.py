"""How a backbone is fine-tuned: `retrain:` of a project's YAML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from croniter import croniter
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

LONGEST = 500  # characters of what is said of one setting
LARGEST = 1_000_000_000  # of any count: what is larger is a slip, and some libraries cannot count it


def no_switch(value: Any) -> Any:
    """Refuses what YAML has made of yes and no."""
    if isinstance(value, bool):
        raise ValueError(f"{str(value).lower()} is no number (YAML reads yes, no, on, off as a boolean)")  # noqa: TRY004 -- pydantic wants it
    return value


Number = Annotated[float, BeforeValidator(no_switch)]
Share = Annotated[Number, Field(ge=0, le=1)]
Whole = Annotated[int, BeforeValidator(no_switch), Field(ge=0)]
Positive = Annotated[Whole, Field(gt=0, le=LARGEST)]
Rate = Annotated[Number, Field(gt=0, le=10)]


def in_words(error: Mapping[str, Any]) -> str:
    """One thing that pydantic found: which setting, what is wrong, and what to write where it is easily mistaken."""
    place, value = ".".join(map(str, error["loc"])), error.get("input")
    if error["type"] == "string_type" and isinstance(value, bool | int | float):
        return f"{place}: {json.dumps(value)} is no text: write it in quotes, '{json.dumps(value)}'"
    if error["type"] == "extra_forbidden":
        return f"{place}: Extra inputs are not permitted: no setting is called so (docs/configuration.md)"
    share = error["type"] == "less_than_equal" and error.get("ctx", {}).get("le") == 1
    hint = f": {value} % is {value / 100:g}" if share and isinstance(value, int | float) and value <= 100 else ""
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "it must be")
    sentence = f"{place or 'the file'}: {message}{hint}"
    return sentence if len(sentence) <= LONGEST else f"{sentence[:LONGEST]}…"


WHEN = frozenset({"after", "growth", "mix", "images", "cron", "on_change", "on_upgrade", "automatic"})


class Retrain(BaseModel):
    """When and how the backbone is fine-tuned."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # when
    after: Positive = 200  # new labels, at least
    growth: Share = 0.25  # and at least this share of those it was trained on
    mix: Share | None = None  # or the shares of the classes have moved by so much since
    images: Annotated[Whole, Field(le=LARGEST)] = 0  # or there are so many more images, and new labels at all; 0: never
    cron: str | None = None  # or at these times (UTC), where there are new labels at all
    on_change: bool = True  # or this part of the config, or the backbone's, is not that of the last one
    on_upgrade: bool = False  # or labelloop itself is not
    automatic: bool = True  # none of these where it is false: only when a person asks

    # how long
    epochs: Positive = 4
    batch_size: Annotated[Positive, Field(le=65_536)] = 32
    validation: Annotated[Number, Field(ge=0, le=0.5)] = 0.15  # of the train split: stops, and picks the best epoch
    patience: Positive | None = None  # epochs without gain after which it ends early

    # optimiser
    optimiser: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    learning_rate: Rate = 1e-3  # of the layer on top
    backbone_rate: Share = 0.1  # the backbone's, as a share of it
    layer_decay: Annotated[Number, Field(gt=0, le=1)] = 1.0  # each layer further down learns slower by this factor
    momentum: Share = 0.9  # sgd, rmsprop
    weight_decay: Share = 0.01

    # learning rate over time
    schedule: Literal["onecycle", "cosine", "plateau", "constant"] = "onecycle"
    warm_up: Share = 0.1  # of the steps, cosine
    plateau_patience: Positive = 3  # epochs without gain ...
    plateau_factor: Annotated[Number, Field(gt=0, lt=1)] = 0.5  # ... after which the rate is multiplied by this ...
    plateau_floor: Annotated[Number, Field(ge=0)] = 1e-5  # ... but never below

    # what is learned
    warm_head: bool = True  # begin with a head fitted on the kept features, else with noise
    freeze_norm: bool | None = None  # batch-norm statistics; none: where the network came with weights
    ema: Annotated[Number, Field(ge=0, lt=1)] = 0.0  # decay of the averaged weights that are kept; 0: the last ones
    label_smoothing: Annotated[Number, Field(ge=0, lt=1)] = 0.0
    balance: Literal["none", "weights", "sampling"] = "none"  # of classes
    augment: Literal["none", "light", "heavy"] = "none"
    mirror: bool = False  # flip images left to right at random; wrong for digits, right for most photographs
    mixup: Annotated[Number, Field(ge=0)] = 0.0  # alpha of the beta distribution; 0: none
    cutmix: Annotated[Number, Field(ge=0)] = 0.0

    # on what
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False  # torch.compile: pays on a GPU and for long runs
    processes: Annotated[Positive, Field(le=256)] | None = None  # share each batch (torchrun); none: one per GPU

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None and not croniter.is_valid(cron):
            raise ValueError(f"{cron!r} is no cron expression; `0 3 * * *` means every day at three (UTC)")
        return cron

    @property
    def recipe(self) -> dict[str, Any]:
        """What a fine-tune does, without when it does."""
        return self.model_dump(mode="json", exclude=set(WHEN))

    @model_validator(mode="after")
    def _fits(self) -> Retrain:
        if self.schedule == "plateau" and self.validation == 0:
            raise ValueError("schedule: plateau watches the validation part: set validation above 0")
        if self.patience is not None and self.validation == 0:
            raise ValueError("patience counts epochs without gain on the validation part: set validation above 0")
        return self
