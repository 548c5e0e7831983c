"""Scores of all groups by the criterion that a user names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from compression.channel_pruning.material import Material
from compression.channel_pruning.scores import BY_WEIGHTS, Scores, at_random, normalization_scale
from compression.channel_pruning.wish import Criterion
from compression.graph.channels import Group
from compression.method import StepContext

TRIED_ON = 16
"""Samples on which units are taken away one by one."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Scores by group, what they mean, and the groups that have none."""

    scores: Mapping[str, Scores]
    notes: tuple[str, ...] = ()
    unscored: Mapping[str, str] = field(default_factory=dict)
    """By group's id, why."""


def judge(
    model: ir.Model, groups: Sequence[Group], criterion: Criterion, material: Material, context: StepContext
) -> Judged:
    """The scores of each unit; the model stays as it is.

    Raises:
        DataMissing: the criterion looks at data and there is none.
        NotTrainable: it needs gradients and there are none.
    """
    if criterion in BY_WEIGHTS:
        return Judged(scores={group.id: BY_WEIGHTS[criterion](group) for group in groups})
    if criterion == "random":
        return Judged(scores={group.id: at_random(group, context.seed) for group in groups})
    if criterion == "bn_scale":
        return _by_scale(groups)
    if criterion == "taylor":
        from compression.channel_pruning.slopes import taylor

        scores, note = taylor(model, groups, material.batches(criterion), context, material.max_samples)
        return Judged(scores=scores, notes=(note,))
    if criterion == "entropy":
        return _by_entropy(model, groups, material, context)
    from compression.channel_pruning.removal import stability

    feeds = material.one(criterion, TRIED_ON).feeds
    return Judged(scores=stability(model, groups, feeds, context))


def _by_scale(groups: Sequence[Group]) -> Judged:
    found = {group.id: normalization_scale(group) for group in groups}
    return Judged(
        scores={name: scores for name, scores in found.items() if scores is not None},
        unscored={
            name: "no normalization scales its units; where it was folded into the weights, take l1 or taylor"
            for name, scores in found.items()
            if scores is None
        },
    )


def _by_entropy(model: ir.Model, groups: Sequence[Group], material: Material, context: StepContext) -> Judged:
    from compression.channel_pruning.activity import entropy, visible

    seen = [group for group in groups if visible(model, group)]
    return Judged(
        scores=entropy(model, seen, material.some("entropy"), context),
        unscored={
            group.id: "its activations are inside a subgraph and cannot be watched"
            for group in groups
            if group not in seen
        },
    )
