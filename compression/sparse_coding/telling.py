"""What a report says of sparse coding."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compression.method import LayerOutcome
from compression.quantization.affine import sqnr_db
from compression.sparse_coding.fitting import relative_error
from compression.sparse_coding.pursuit import Doubles
from compression.sparse_coding.storing import Stored
from compression.weight_targets import Target

NO_FASTER = "only the storage changes: the runtime computes in floats as before, so that nothing gets faster"


@dataclass(kw_only=True)
class Told:
    """One tensor and what became of it."""

    target: Target
    changed: bool = False
    note: str = ""
    numbers: dict[str, float] = field(default_factory=dict)

    @property
    def before_bytes(self) -> int:
        return int(self.target.tensor.nbytes)

    def tell(
        self, stored: Stored, weight: Doubles, made: Doubles, *, moments: Doubles | None, after_bytes: int
    ) -> None:
        """That it was coded, and how well; weights are (rows, width)."""
        atoms, block = stored.dictionary.shape
        each = stored.entries / stored.layout.signals
        slots = f"{stored.slots}" if stored.counts is None else f"{each:.2f} (at most {stored.slots})"
        self.changed = True
        self.note = f"{slots} of {atoms} atoms for every {block} weights, gains of {stored.value_bits} bits"
        self.numbers = {
            "stored_bytes_before": float(self.before_bytes),
            "stored_bytes_after": float(after_bytes),
            "size_ratio": self.before_bytes / after_bytes,
            "atoms": float(atoms),
            "nonzeros_per_block": each,
            "weight_error": relative_error(weight, made, None),
        }
        figure = sqnr_db(weight, made)
        self.numbers |= {"sqnr_db": figure} if abs(figure) != float("inf") else {}
        if moments is not None:
            self.numbers["output_error"] = relative_error(weight, made, moments)


def totals(items: Sequence[Told]) -> dict[str, Any]:
    before, after = (
        int(sum(item.numbers.get(f"stored_bytes_{when}", 0) for item in items))
        for when in ("before", "after")
    )
    return {"coded": sum(item.changed for item in items), "bytes_before": before, "bytes_after": after}


def notes(items: Sequence[Told], *, fitted: bool, unchecked: str) -> Iterator[str]:
    """`fitted` says that calibration data was looked at, `unchecked` why outputs were not compared."""
    if not any(item.changed for item in items):
        yield "no weight was coded: each layer says why"
        return
    found = totals(items)
    yield f"{found['bytes_before']:,} bytes of weights became {found['bytes_after']:,}"
    if fitted:
        yield "codes are fitted to what the layers see on the calibration data"
    yield NO_FASTER
    if unchecked:
        yield unchecked


def outcome(name: str, items: Sequence[Told], kept: Mapping[str, str]) -> LayerOutcome:
    """Of one layer; `kept` says by name why a weight was no target."""
    mine = [item for item in items if any(layer.name == name for layer in item.target.layers)]
    done = [item for item in mine if item.changed]
    if not done:
        note = kept.get(name) or (mine[0].note if mine else "it has no float weight matrix")
        return LayerOutcome(layer=name, changed=False, note=note)
    note = "; ".join(dict.fromkeys(item.note for item in mine))
    return LayerOutcome(layer=name, changed=True, note=note, numbers=done[0].numbers)
