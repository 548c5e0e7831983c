"""What a user may set about a student and what it is held to: plain fields, read by the API."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_PAIRS = 16


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Derive(Settings):
    """How a student is made from the teacher."""

    width: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the channels that stay in each group, those with the largest L1 norm",
    )
    depth: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the residual blocks that stay: those go whose loss changes the outputs least",
    )
    weights: Literal["pruned", "reinitialised"] = Field(
        "pruned", description="begin with the teacher's weights that are left, or with random ones"
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.width == 1 and self.depth == 1 and self.weights == "pruned":
            raise ValueError("this student is the teacher: give a width or depth below 1, or reinitialise it")
        return self


class Pair(Settings):
    """Two layers, or values in between, that are held together."""

    student: str = Field(min_length=1, max_length=500, description="a layer or a value of the student")
    teacher: str = Field(min_length=1, max_length=500, description="a layer or a value of the teacher")


class Hidden(Settings):
    """A loss on values inside both models."""

    weight: float = Field(1.0, gt=0, le=1e6, description="what the loss is multiplied with")
    pairs: tuple[Pair, ...] | None = Field(
        None,
        min_length=1,
        max_length=MAX_PAIRS,
        description="which layers are held together; null matches them by depth and shape. A layer is taken "
        "with the normalization and activation that follow it",
    )


class Relations(Settings):
    """A loss on distances and angles between samples."""

    distance: float = Field(1.0, ge=0, le=1e6, description="weight of the distances between two samples")
    angle: float = Field(2.0, ge=0, le=1e6, description="weight of the angles between three samples")
    pair: Pair | None = Field(
        None,
        description="values whose samples are related; null takes the last matched ones, else the outputs",
    )

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.distance or self.angle):
            raise ValueError("give a weight to distance or angle, or leave relations out")
        return self


class Wishes(Settings):
    """Which losses a student is held to."""

    temperature: float
    alpha: float
    features: Hidden | None
    attention: Hidden | None
    relations: Relations | None
    gradients: float

    @property
    def looks_inside(self) -> bool:
        return any(wish is not None for wish in (self.features, self.attention, self.relations))
