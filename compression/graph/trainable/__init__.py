"""ONNX graphs that train: as a torch module, checked against onnxruntime, written back into the same graph.

Importing this package does not import torch; its heavy names are loaded when they are first asked for.
"""

from typing import TYPE_CHECKING, Any

from compression.graph.trainable.coverage import obstacles

if TYPE_CHECKING:
    from compression.graph.trainable.agreement import check_agreement
    from compression.graph.trainable.view import TrainableGraph
    from compression.graph.trainable.writing import write_back

__all__ = ["TrainableGraph", "check_agreement", "obstacles", "write_back"]

HOMES = {"TrainableGraph": "view", "check_agreement": "agreement", "write_back": "writing"}


def __getattr__(name: str) -> Any:
    import importlib

    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
