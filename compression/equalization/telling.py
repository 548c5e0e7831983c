"""Says what equalization did, layer by layer and in one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compression.equalization.groups import Group
from compression.equalization.parts import Doubles
from compression.graph import Layer
from compression.method import LayerOutcome


@dataclass(frozen=True, kw_only=True)
class Equalized:
    """Groups that were rescaled, groups that would have changed the outputs, and layers that are in no group."""

    kind: str
    kept: Mapping[Group, Doubles]
    refused: Mapping[Group, str]
    left: Mapping[str, str]

    def outcomes(self, chosen: Sequence[Layer]) -> tuple[LayerOutcome, ...]:
        numbers: dict[str, dict[str, float]] = {}
        for group, scales in self.kept.items():
            for name in group.layers:
                spread = numbers.setdefault(name, {"largest_scale": 0.0, "smallest_scale": float("inf")})
                spread["largest_scale"] = max(spread["largest_scale"], float(scales.max()))
                spread["smallest_scale"] = min(spread["smallest_scale"], float(scales.min()))
        left = dict(self.left)
        for group, reason in self.refused.items():
            left |= {
                part.node.name or "": f"what it reads, {group.name!r}, is left: {reason}"
                for part in group.raised
            }
        return outcomes(chosen, numbers, left)

    def note(self) -> str:
        """One sentence."""
        start = (
            f"{len(self.kept)} tensors between layers were rescaled ({self.kind}); the outputs are the same"
        )
        if not self.refused:
            return start
        group, reason = next(iter(self.refused.items()))
        return f"{start}; {len(self.refused)} were left, such as {group.name!r}: {reason}"

    def details(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "groups": {group.name: list(group.layers) for group in self.kept},
            "refused": {group.name: reason for group, reason in self.refused.items()},
        }


def outcomes(
    chosen: Sequence[Layer], changed: Mapping[str, dict[str, float]], left: Mapping[str, str]
) -> tuple[LayerOutcome, ...]:
    """`changed` has the numbers of the layers that were rescaled, `left` reasons of others."""
    return tuple(
        LayerOutcome(layer=layer.name, changed=True, note="rescaled", numbers=changed[layer.name])
        if layer.name in changed
        else LayerOutcome(layer=layer.name, changed=False, note=left.get(layer.name, _NOTHING))
        for layer in chosen
    )


_NOTHING = "it reads nothing that could be divided by scales"
