"""Equalization from end to end: find groups, take scales, prove that the outputs stay, tell what was done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from compression.equalization.groups import Group, find_groups
from compression.equalization.magnitudes import channel_magnitudes
from compression.equalization.parts import Doubles
from compression.equalization.rescaling import Rescaling
from compression.equalization.telling import Equalized, outcomes
from compression.errors import DataMissing
from compression.graph import Layer, layers
from compression.method import Role, StepContext, StepOutcome
from compression.quantization.probe import Fidelity, Probe, fidelity, take_probe

SAME_DB = 80.0
"""Outputs nearer than this are the same but for the rounding of floats, which many layers amplify: a change of
one part in ten thousand."""
Kind = Literal["cross_layer", "smooth"]


@dataclass(frozen=True, kw_only=True)
class EqualizeOptions:
    """The parameters of equalize, as its fields describe them."""

    kind: Kind
    alpha: float
    max_samples: int


def equalize(
    model: ir.Model, chosen: Sequence[Layer], options: EqualizeOptions, context: StepContext
) -> StepOutcome:
    """Rescale the chosen layers' weights in place.

    Raises:
        DataMissing: `smooth` without calibration data, or there is nothing to compare outputs on.
        DataMismatch: the data does not fit the model.
    """
    if options.kind == "smooth" and Role.CALIBRATION not in context.data:
        raise DataMissing(
            "equalize needs calibration data for `kind: smooth`",
            hint="name a dataset under data.calibration, or take `kind: cross_layer`",
        )
    context.report(0.0, "looking for layers to equalize")
    names = {layer.name for layer in chosen}
    found = find_groups(model, layers(model), names, linear=options.kind == "cross_layer")
    if not found.groups:
        return StepOutcome(
            model=model,
            layers=outcomes(chosen, {}, found.left),
            notes=("nothing was equalized: no two neighbouring layers can exchange scales",),
            details={"kind": options.kind, "groups": {}},
        )
    probe = take_probe(model, context)
    rescaling = Rescaling.of(model, found.groups)
    scales, refused = _scales(model, rescaling, options, context)
    trial = _Trial(
        model=model, rescaling=rescaling, scales=scales, probe=probe, context=context, refused=refused
    )
    kept = {group: scales[group] for group in trial.keep(list(scales))}
    done = Equalized(kind=options.kind, kept=kept, refused=trial.refused, left=found.left)
    return StepOutcome(
        model=model, layers=done.outcomes(chosen), notes=(done.note(),), details=done.details()
    )


def _scales(
    model: ir.Model, rescaling: Rescaling, options: EqualizeOptions, context: StepContext
) -> tuple[dict[Group, Doubles], dict[Group, str]]:
    """Scales, and why some groups get none."""
    if options.kind == "cross_layer":
        return rescaling.cross_layer(), {}
    seen = channel_magnitudes(model, rescaling.groups, context, samples=options.max_samples)
    bad = {
        group: f"{group.name!r} takes NaN or infinity on the calibration data"
        for group in rescaling.groups
        if not np.isfinite(seen[group.name]).all()
    }
    known = Rescaling(
        groups=tuple(group for group in rescaling.groups if group not in bad),
        originals=rescaling.originals,
    )
    return known.smooth(seen, options.alpha), bad


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """Tries groups together and leaves out those that change the outputs."""

    model: ir.Model
    rescaling: Rescaling
    scales: Mapping[Group, Doubles]
    probe: Probe
    context: StepContext
    refused: dict[Group, str]
    """Grows by what is left out, with the reason."""

    def keep(self, groups: Sequence[Group]) -> tuple[Group, ...]:
        """Those of the groups that keep the outputs, together; the model holds them afterwards."""
        kept = self._more((), groups)
        self.rescaling.write({group: self.scales[group] for group in kept})
        return kept

    def _more(self, kept: tuple[Group, ...], groups: Sequence[Group]) -> tuple[Group, ...]:
        """`kept` and as many of the groups as can stand beside them, found by halving."""
        if not groups:
            return kept
        self.context.report(0.6 + 0.3 * len(kept) / len(self.scales), f"comparing outputs, {len(kept)} kept")
        found = self._compare((*kept, *groups))
        if _same(found):
            return (*kept, *groups)
        if len(groups) == 1:
            self.refused[groups[0]] = f"the outputs would change ({found.sqnr_db:.0f} dB)"
            return kept
        half = len(groups) // 2
        return self._more(self._more(kept, groups[:half]), groups[half:])

    def _compare(self, groups: Sequence[Group]) -> Fidelity:
        self.rescaling.write({group: self.scales[group] for group in groups})
        return fidelity(self.probe, self.model, self.context)


def _same(found: Fidelity) -> bool:
    return found.agreement == 1.0 and (not found.comparable or found.sqnr_db >= SAME_DB)
