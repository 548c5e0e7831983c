"""What every operator does to the axes of its inputs: tables by kind, one short function for each."""

from compression.graph.channels.reading import Rule
from compression.graph.channels.rules.attention import ATTENTION
from compression.graph.channels.rules.control import CONTROL
from compression.graph.channels.rules.elementwise import ELEMENTWISE
from compression.graph.channels.rules.layout import LAYOUT
from compression.graph.channels.rules.norms import NORMS
from compression.graph.channels.rules.pieces import PIECES
from compression.graph.channels.rules.products import PRODUCTS
from compression.graph.channels.rules.quantizing import QUANTIZING
from compression.graph.channels.rules.recurrent import RECURRENT
from compression.graph.channels.rules.slicing import SLICING
from compression.graph.channels.rules.windows import WINDOWS

RULES: dict[str, Rule] = {
    **ATTENTION,
    **CONTROL,
    **ELEMENTWISE,
    **LAYOUT,
    **NORMS,
    **PIECES,
    **PRODUCTS,
    **QUANTIZING,
    **RECURRENT,
    **SLICING,
    **WINDOWS,
}
"""By operator, with its domain before it unless that is ONNX's own: `Conv`, `com.microsoft::FusedConv`."""
