"""Groups with their scales, put into a model's constants and taken out again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from compression.equalization.groups import Group
from compression.equalization.parts import Doubles, Part
from compression.equalization.scales import cross_layer, smooth
from compression.graph.naming import namer

Arrays = dict[ir.Value, Doubles]
Scales = Mapping[Group, Doubles]
_SWEEPS = 40
_SETTLED = 1e-3
"""A chain is done when no scale of a sweep is further from 1 than this."""


@dataclass(frozen=True, kw_only=True)
class Rescaling:
    """The constants of a model's groups as they were, from which any choice of groups can be rescaled."""

    groups: tuple[Group, ...]
    originals: Mapping[ir.Value, ir.TensorProtocol]

    @classmethod
    def of(cls, model: ir.Model, groups: Sequence[Group]) -> "Rescaling":
        """Constants that others read too are copied first, in place."""
        fresh = namer(model)
        for part in _parts(groups):
            part.make_own(fresh)
        originals = {part.value: part.value.const_value for part in _parts(groups)}
        return cls(
            groups=tuple(groups),
            originals={value: tensor for value, tensor in originals.items() if tensor is not None},
        )

    def cross_layer(self) -> dict[Group, Doubles]:
        """Scales of all groups, sweep after sweep over them, until neighbours agree (Nagel et al. 2019, 4.1)."""
        arrays = self._arrays()
        total = {group: np.ones(group.channels) for group in self.groups}
        for _ in range(_SWEEPS):
            moved = 0.0
            for group in self.groups:
                scales = cross_layer(_size(group.lowered, arrays), _size(group.raised, arrays))
                _apply(group, scales, arrays)
                total[group] *= scales
                moved = max(moved, float(np.abs(np.log(scales)).max(initial=0.0)))
            if moved < _SETTLED:
                break
        return total

    def smooth(self, activations: Mapping[str, Doubles], alpha: float) -> dict[Group, Doubles]:
        """Scales of all groups, from the inputs on, each with those before it applied."""
        arrays, found = self._arrays(), {}
        for group in self.groups:
            found[group] = smooth(activations[group.name], _size(group.raised, arrays), alpha)
            _apply(group, found[group], arrays)
        return found

    def write(self, scales: Scales) -> None:
        """Rescale these groups and leave the others as they were, in place.

        Raises:
            ValueError: a constant would not be finite.
        """
        arrays = self._arrays()
        for group, amounts in scales.items():
            _apply(group, amounts, arrays)
        for value, tensor in self.originals.items():
            value.const_value = ir.tensor(arrays[value].astype(np.float32), name=tensor.name)
        for value in self.originals.keys() - {part.value for part in _parts(list(scales))}:
            value.const_value = self.originals[value]

    def _arrays(self) -> Arrays:
        return {value: tensor.numpy().astype(np.float64) for value, tensor in self.originals.items()}


def _parts(groups: Sequence[Group]) -> list[Part]:
    return [part for group in groups for part in (*group.lowered, *group.raised)]


def _size(parts: Sequence[Part], arrays: Arrays) -> Doubles:
    found = [part.magnitudes(arrays[part.value]) for part in parts if part.measured]
    largest: Doubles = np.max(found, axis=0)
    return largest


def _apply(group: Group, scales: Doubles, arrays: Arrays) -> None:
    for part in group.lowered:
        part.multiply(arrays[part.value], 1 / scales)
    for part in group.raised:
        part.multiply(arrays[part.value], scales)
