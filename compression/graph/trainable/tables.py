"""All operators of the trainable view, from one table per kind."""

from collections.abc import Mapping

from compression.graph.trainable.activations import ACTIVATIONS
from compression.graph.trainable.arithmetic import ARITHMETIC
from compression.graph.trainable.attention import ATTENTION
from compression.graph.trainable.control import CONTROL
from compression.graph.trainable.convolution import CONVOLUTIONS
from compression.graph.trainable.gathering import GATHERING
from compression.graph.trainable.indexing import INDEXING
from compression.graph.trainable.node import Table
from compression.graph.trainable.normalization import NORMALIZATIONS
from compression.graph.trainable.pooling import POOLING
from compression.graph.trainable.products import PRODUCTS
from compression.graph.trainable.quantizing import QUANTIZING
from compression.graph.trainable.recurrent import RECURRENT
from compression.graph.trainable.reductions import REDUCTIONS
from compression.graph.trainable.regions import REGIONS
from compression.graph.trainable.resizing import RESIZING
from compression.graph.trainable.signals import SIGNALS

OPERATORS: Table = {
    **ACTIVATIONS,
    **ARITHMETIC,
    **ATTENTION,
    **CONTROL,
    **CONVOLUTIONS,
    **GATHERING,
    **INDEXING,
    **NORMALIZATIONS,
    **POOLING,
    **PRODUCTS,
    **QUANTIZING,
    **RECURRENT,
    **REDUCTIONS,
    **REGIONS,
    **RESIZING,
    **SIGNALS,
}

READ_ON_CPU: Mapping[str, frozenset[int]] = {
    **dict.fromkeys(("Reshape", "Expand", "Squeeze", "Unsqueeze", "Split", "TopK", "Trilu"), frozenset({1})),
    **dict.fromkeys(
        ("OneHot", "CumSum", "CumProd", "CenterCropPad", "AffineGrid", "Upsample"), frozenset({1})
    ),
    **dict.fromkeys(("Tile", "Clip", "Dropout", "DFT", "Col2Im"), frozenset({1, 2})),
    **dict.fromkeys(("Slice", "Pad", "Resize", "STFT"), frozenset({1, 2, 3, 4})),
    **dict.fromkeys(("SplitToSequence", "SequenceAt", "SequenceErase"), frozenset({1})),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), frozenset({4})),
    **dict.fromkeys((name for name in OPERATORS if name.startswith("Reduce")), frozenset({1})),
    "Pow": frozenset({1}),
    "SequenceInsert": frozenset({2}),
    "MaxUnpool": frozenset({2}),
    "NonMaxSuppression": frozenset({2, 3, 4}),
    "If": frozenset({0}),
    "Loop": frozenset({0, 1}),
}
"""Inputs by place that say how to compute rather than what with: sizes, axes, bounds. They stay on the CPU."""
