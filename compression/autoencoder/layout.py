"""How samples become rows of features: whole, or one row for each position of a map or sequence."""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Unit = Literal["auto", "sample", "position"]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`shape` is one sample's. `axis` counts features and the batch axis too; None flattens the sample."""

    shape: tuple[int, ...]
    axis: int | None

    @property
    def features(self) -> int:
        return prod(self.shape) if self.axis is None else self.shape[self.axis - 1]

    @property
    def positions(self) -> int:
        """Rows that one sample gives."""
        return prod(self.shape) // max(self.features, 1)

    def rows(self, samples: Array) -> Array:
        """[N * positions, features] from [N, *shape]."""
        if self.axis is None:
            return samples.reshape(len(samples), self.features)
        return np.moveaxis(samples, self.axis, -1).reshape(-1, self.features)


def choose_layout(shape: tuple[int, ...], feature_axis: int, unit: Unit) -> Layout:
    """`auto` takes positions where there are several: channels of a map and steps of a sequence are features."""
    single = prod(shape) == shape[feature_axis - 1]
    whole = unit == "sample" or (single and len(shape) != 1)
    return Layout(shape=shape, axis=None if whole else feature_axis)
