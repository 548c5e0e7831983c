"""Prunes once by what the loss owes to each weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from torch import Tensor

from compression.errors import NotApplicable
from compression.graph import Layer, interface, layers
from compression.method import LayerOutcome, Role, StepContext, StepOutcome
from compression.pruning.masks import Scope, keep_above, keep_largest
from compression.pruning.scores import Sensitivity, sensitivities
from compression.pruning.zeros import count_zeros, merged, notes_on, zeroed
from compression.training.batches import Batches
from compression.training.sensing import sense
from compression.weight_targets import Target, find_targets, put

UNSEEN = "its weight is none that a gradient reaches"


@dataclass(frozen=True, kw_only=True)
class Wish:
    """The parameters of prune_sensitivity, as its fields describe them."""

    criterion: Sensitivity
    sparsity: float | None
    threshold: float | None
    scope: Scope
    batch_size: int
    max_samples: int


def prune(model: ir.Model, chosen: Sequence[Layer], wish: Wish, context: StepContext) -> StepOutcome:
    """Sets weights to zero in place.

    Raises:
        NotApplicable: no gradient reaches the selected layers.
        NotTrainable: the model cannot be differentiated.
    """
    targets, kept = find_targets(chosen, layers(model))
    batches = Batches(
        context.data[Role.TRAINING], interface(model)[0], batch_size=wish.batch_size, seed=context.seed
    )
    view, objective, note = sense(model, batches, context)
    able = [target for target in targets if target.value.name in view.weights]
    kept |= {layer.name: UNSEEN for target in targets if target not in able for layer in target.layers}
    if not able:
        raise NotApplicable("no gradient reaches the selected layers", where="layers")
    names = [target.value.name or "" for target in able]
    rows = _drawn(batches, wish.max_samples, context.seed)
    scores = sensitivities(
        view,
        objective,
        batches.each(rows),
        names,
        wish.criterion,
        heard=lambda done: context.report(
            0.9 * done / len(rows), f"differentiating on sample {done} of {len(rows)}"
        ),
    )
    zero = {name: view.weights[name].detach().cpu() == 0 for name in names}
    if wish.threshold is not None:
        masks = keep_above(scores, zero, wish.threshold)
    else:
        masks = keep_largest(scores, zero, wish.sparsity or 0.0, wish.scope)
    highest = max(float(score.max()) for score in scores.values())
    notes = (note, f"the highest score is {highest:.3g}")
    return _outcome(model, chosen, able, masks=masks, kept=kept, notes=notes)


def _drawn(batches: Batches, most: int, seed: int) -> "np.ndarray":
    rows = batches.training_rows
    return (
        rows if len(rows) <= most else np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    )


def _outcome(
    model: ir.Model,
    chosen: Sequence[Layer],
    targets: Sequence[Target],
    *,
    masks: Mapping[str, Tensor],
    kept: Mapping[str, str],
    notes: tuple[str, ...],
) -> StepOutcome:
    outcomes = {name: LayerOutcome(layer=name, changed=False, note=why) for name, why in kept.items()}
    zeros = 0
    for target in targets:
        mask = ~masks[target.value.name or ""].numpy()
        put(target, lambda values, mask=mask: zeroed(values, mask))  # type: ignore[misc]
        count, numbers = count_zeros(target)
        zeros += count
        for layer in target.layers:
            outcomes[layer.name] = merged(outcomes.get(layer.name), layer.name, None, numbers)
    total = sum(target.size for target in targets)
    share = zeros / max(total, 1)
    return StepOutcome(
        model=model,
        layers=tuple(outcomes[layer.name] for layer in chosen if layer.name in outcomes),
        notes=(*notes_on(zeros, total, outcomes), *notes),
        details={"zeros": zeros, "weights": total, "sparsity": share, "density": 1 - share},
    )
