"""Which operators the trainable view knows, told without torch."""

import onnx_ir as ir

from compression.summary import Obstacle

OPERATOR_NAMES: frozenset[str] = frozenset()


def obstacles(model: ir.Model) -> tuple[Obstacle, ...]:
    """What keeps a model from being trained; empty where nothing does."""
    return ()
