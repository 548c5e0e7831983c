"""What a report says of a factorization."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compression.graph import Layer
from compression.lowrank.finding import Place
from compression.lowrank.material import Material
from compression.method import LayerOutcome


@dataclass(frozen=True, kw_only=True)
class Told:
    """What became of one weight."""

    words: str
    ranks: tuple[int, ...]
    macs_before: int
    macs_after: int
    known: bool
    """Whether the counts are of a sample, and not only in proportion."""
    weight_error: float
    """|W - W'| / |W| (Frobenius)."""
    output_error: float | None
    """|(W - W') X| / |W X|, the same of what the layer gives on the calibration data; None where it was not seen."""
    biased: bool

    @property
    def numbers(self) -> dict[str, float]:
        found: dict[str, float] = {"macs_ratio": self.macs_after / self.macs_before}
        if self.known:
            found |= {"macs_before": float(self.macs_before), "macs_after": float(self.macs_after)}
        found |= {f"rank_{place}": float(rank) for place, rank in enumerate(self.ranks, 1)}
        found["weight_error"] = self.weight_error
        return found if self.output_error is None else {**found, "output_error": self.output_error}


def outcomes(
    chosen: Sequence[Layer],
    places: Sequence[Place],
    told: Mapping[str, Told],
    kept: Mapping[str, str],
    material: Material,
) -> tuple[LayerOutcome, ...]:
    home = {layer.name: place.name for place in places for layer in place.layers}
    found = []
    for layer in chosen:
        item = told.get(home.get(layer.name, ""))
        if item is None:
            found.append(LayerOutcome(layer=layer.name, changed=False, note=kept[layer.name]))
            continue
        words = f"{item.words}, {item.macs_after / item.macs_before:.0%} of the multiply-accumulates"
        if item.biased:
            words += "; the bias takes up the mean error"
        blind = material.unwhitened.get(home[layer.name])
        if blind:
            words += f"; by the weight alone, since {blind}"
        found.append(LayerOutcome(layer=layer.name, changed=True, note=words, numbers=item.numbers))
    return tuple(found)


def summary(
    material: Material, told: Mapping[str, Told], before: int | None, after: int | None
) -> tuple[tuple[str, ...], dict[str, Any]]:
    details: dict[str, Any] = {"factorized": len(told), "whitened": len(set(told) & set(material.stored))}
    if material.wish.weigh_outputs and material.stored:
        details["weighed"] = len(set(told) & set(material.curvature))
    if before is not None and after is not None:
        details |= {"macs_before": before, "macs_after": after}
    return tuple(_notes(material, told, before, after)), details


def _notes(
    material: Material, told: Mapping[str, Told], before: int | None, after: int | None
) -> Iterator[str]:
    if not told:
        yield "no layer was factorized: nothing would have saved both multiplications and bytes"
        return
    if before and after is not None:
        yield f"{after / before:.1%} of the multiply-accumulates are left ({after:,} of {before:,})"
    if material.stored:
        most = ", most of all what moves the model's outputs" if material.curvature else ""
        yield f"factors keep what layers give on the calibration data{most}"
        if material.undifferentiated:
            yield f"all that layers give counts alike, since there are no gradients: {material.undifferentiated}"
    elif material.wish.whiten == "auto":
        yield "factors keep the weights alone: with calibration data outputs lose less"
    else:
        yield "factors keep the weights alone, as asked"
