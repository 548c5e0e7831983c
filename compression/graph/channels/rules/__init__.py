"""What every operator does to the axes of its inputs: tables by kind, one short function for each."""

from compression.graph.channels.reading import Rule
from compression.graph.channels.rules.elementwise import ELEMENTWISE
from compression.graph.channels.rules.layout import LAYOUT
from compression.graph.channels.rules.norms import NORMS
from compression.graph.channels.rules.pieces import PIECES
from compression.graph.channels.rules.products import PRODUCTS
from compression.graph.channels.rules.windows import WINDOWS

RULES: dict[str, Rule] = {**ELEMENTWISE, **LAYOUT, **NORMS, **PIECES, **PRODUCTS, **WINDOWS}
"""By operator, with its domain before it unless that is ONNX's own: `Conv`, `com.microsoft::FusedConv`."""
