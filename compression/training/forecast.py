"""What training costs and what stands in its way, told from summaries alone."""

from collections.abc import Iterator

from compression.method import Problem
from compression.summary import LayerSummary, ModelSummary

MACS_PER_SECOND = 8e9
"""Of torch on two cores, forward; measured on small convolutions. Big layers are faster."""
NODE_SECONDS = 40e-6
"""What one node of one batch costs beside its arithmetic, with its gradient and its share of the optimizer."""
BACKWARD = 3.0
"""One forward and one backward pass, the latter twice as long."""
TORCH_BYTES = 450_000_000
"""A process with torch and onnxruntime loaded and nothing else."""
COPIES = 7
"""Of the weights: stored, in the view, gradients, two of Adam's moments, the best ones, written back."""
KEPT = 4
"""Values of a layer's output that are kept for its gradient, with normalization and activation behind it."""


def training_seconds(model: ModelSummary, samples: int, epochs: float, batch_size: int) -> float:
    """A rough wall time on a machine with two cores."""
    per_sample = BACKWARD * (model.macs or model.parameters) / MACS_PER_SECOND
    batches = -(-samples // batch_size)
    nodes = sum(model.operators.values())
    return epochs * (samples * per_sample + batches * (nodes * NODE_SECONDS + 0.001))


def training_memory(model: ModelSummary, batch_size: int, *, copies: int = COPIES) -> int:
    """Peak bytes: copies of the weights in float32, and what is kept of a batch for its gradients."""
    kept = KEPT * 4 * batch_size * sum(_outputs(layer) for layer in model.layers)
    return TORCH_BYTES + copies * 4 * model.parameters + kept + 2 * model.size_bytes


def _outputs(layer: LayerSummary) -> int:
    """Entries of a layer's output for one sample, about: each position costs a kernel's MACs."""
    if not layer.macs or not layer.weight.shape:
        return 0
    positions = layer.macs / max(layer.weight.elements, 1)
    return int(positions * layer.weight.shape[0])


def obstacle_problems(method: str, model: ModelSummary) -> Iterator[Problem]:
    """Why a model cannot be trained, one problem per operator that stands in the way."""
    for found in model.obstacles:
        what = f"{found.operator}, of which the model has {found.count}: " if found.operator else ""
        yield Problem(
            code="not_trainable",
            message=f"{method} trains, and this model cannot be: {what}{found.reason}",
            where=found.node or None,
            hint="methods without gradients still run: prune_magnitude, quantize_static, quantize_weights",
        )
