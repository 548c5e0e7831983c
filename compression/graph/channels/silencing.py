"""Makes the units that are to leave invisible in the original, so that it can be held against the cut model."""

import onnx_ir as ir

from compression.graph.channels.cutting import alive_units
from compression.graph.channels.edits import Shears
from compression.graph.channels.group import Doomed
from compression.graph.channels.grouping import analyse
from compression.graph.channels.reading import Site
from compression.graph.naming import namer


def silence(model: ir.Model, doomed: Doomed) -> None:
    """Lets every node that sums over doomed units find zeros in their place; shapes stay, in place.

    Zeros stand at the readers and not at the makers, since biases and most activations do not keep them.

    Raises:
        NotApplicable: as `cut` does.
    """
    analysis = analyse(model)
    shears = Shears(alive=alive_units(analysis, doomed), fresh=namer(model))
    for site in analysis.reading.sites:
        if shears.touches(site.label):
            _mask(site, shears)


def _mask(site: Site, shears: Shears) -> None:
    """input * mask in place of the input."""
    node, value = site.node, site.node.inputs[site.index]
    if value is None or node.graph is None:
        raise ValueError(f"{node.name} has no input {site.index}")
    stays = shears.kept(site.label)
    shape = [len(stays) if axis == site.axis else 1 for axis in range(site.rank)]
    dtype = value.dtype if value.dtype is not None else ir.DataType.FLOAT
    mask = shears.stored(node, stays.reshape(shape).astype(dtype.numpy()), "mask")
    masked = ir.node("Mul", [value, mask], name=shears.fresh(f"{node.name}.masked"))
    masked.outputs[0].name = shears.fresh(f"{masked.name}.output")
    masked.outputs[0].dtype = dtype
    node.graph.insert_before(node, masked)
    node.replace_input_with(site.index, masked.outputs[0])
