"""Takes in what a watched model leaves of its tensors, inference by inference."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compression.quantization.ranges.derived import Derived, Function
from compression.quantization.ranges.statistics import Statistics
from compression.quantization.ranges.watching import Watched

_NONE = np.empty(0, np.float32)


class Collected:
    """Statistics in the making, by tensor name."""

    def __init__(self, watched: Mapping[str, Watched], derived: Mapping[str, Derived], folds: int) -> None:
        self.watched = watched
        self.seen = {name: Statistics(folds) for name in watched}
        self.same = {
            name: item.source
            for name, item in derived.items()
            if item.function is None and item.source in watched
        }
        self.readers: dict[str, list[tuple[str, Function]]] = {name: [] for name in watched}
        for name, item in derived.items():
            if item.function is not None and item.source in watched:
                self.seen[name] = Statistics(folds)
                self.readers[item.source].append((name, item.function))
        self.refused: dict[str, str] = {}

    def take(self, outputs: Mapping[str, NDArray[Any]], fold: int) -> None:
        """Take in one inference; an empty tensor, or one in a branch not taken, adds nothing."""
        for name, keys in self.watched.items():
            low, high = outputs[keys.low], outputs[keys.high]
            if not low.size or low > high:
                continue
            values = outputs[keys.values] if keys.values else _NONE
            weight = float(outputs[keys.size]) / max(values.size, 1) if keys.size else 1.0
            sample = _Sample(
                ends=np.array([low, high]),
                values=values,
                weight=weight,
                fold=fold,
                finite=not np.isnan(outputs[keys.sum]),
            )
            self._observe(name, sample)
            for other, function in self.readers[name]:
                self._observe(
                    other, replace(sample, ends=function(sample.ends), values=function(sample.values))
                )

    def finished(self) -> dict[str, Statistics]:
        """All tensors but those refused; tensors that hold the same values share one object.

        A tensor that never held a value is refused too, for there is nothing to tell a range by.
        """
        for name, seen in self.seen.items():
            if not seen.samples.any():
                self._refuse(name, "holds no value on any of the calibration data")
        found = {name: seen for name, seen in self.seen.items() if name not in self.refused}
        return found | {name: found[source] for name, source in self.same.items() if source in found}

    def _observe(self, name: str, sample: "_Sample") -> None:
        if name in self.refused:
            return
        if sample.finite and np.isfinite(sample.ends).all():
            low, high = (float(end) for end in sample.ends)
            self.seen[name].observe(low, high, sample.values, sample.weight, sample.fold)
            return
        self._refuse(name, "takes NaN or infinity on the calibration data")

    def _refuse(self, name: str, reason: str) -> None:
        for refused in (name, *(other for other, source in self.same.items() if source == name)):
            self.refused.setdefault(refused, f"the tensor {refused!r} {reason}")


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """One tensor in one inference."""

    ends: NDArray[Any]
    values: NDArray[Any]
    weight: float
    fold: int
    finite: bool
    """False where NaN is inside; infinity shows at the ends."""
