"""Makes the units that are to leave invisible in the original, so that it can be held against the cut model."""

import numpy as np
import onnx_ir as ir

from compression.graph.channels.cutting import alive_units
from compression.graph.channels.edits import Shears
from compression.graph.channels.group import Doomed
from compression.graph.channels.grouping import analyse
from compression.graph.channels.notes import Restated, Site
from compression.graph.naming import namer


def silence(model: ir.Model, doomed: Doomed, *, widths: bool = False) -> None:
    """Lets every node that sums over doomed units find zeros in their place; shapes stay, in place.

    Zeros stand at the readers and not at the makers, since biases and most activations do not keep them. With
    `widths`, statistics are taken over the units that stay.

    Raises:
        NotApplicable: as `cut` does.
    """
    analysis = analyse(model, widths)
    shears = Shears(alive=alive_units(analysis, doomed), fresh=namer(model))
    for site in analysis.reading.sites:
        if shears.touches(site.label):
            _mask(shears, site)
    for restated in analysis.reading.restated:
        if shears.touches(restated.label):
            _restate(shears, restated)


def _mask(shears: Shears, site: Site) -> None:
    """input * mask in place of the input."""
    mask = _along(shears.kept(site.label), site.axis, site.rank)
    shears.put_before(site.node, site.index, "Mul", _typed(site.node, site.index, mask))


def _restate(shears: Shears, restated: Restated) -> None:
    """A mean over fewer is a sum with zeros over the number of those that stay; other norms see just these."""
    node, stays = restated.node, shears.kept(restated.label)
    if node.op_type == "ReduceMean":
        mask = _along(stays, restated.axis, restated.rank)
        shears.put_before(node, 0, "Mul", _typed(node, 0, mask))
        shears.put_after(node, "Mul", _typed(node, 0, np.asarray(len(stays) / stays.sum())))
        return
    for index, value in enumerate(node.inputs):
        if value is not None and not _is_single(value):
            shears.put_before(node, index, "Gather", np.flatnonzero(stays), axis=-1)
    shears.put_after(node, "MatMul", _typed(node, 0, np.eye(len(stays))[stays]))


def _along(stays: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return stays.reshape([len(stays) if index == axis else 1 for index in range(rank)])


def _is_single(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.size == 1


def _typed(node: ir.Node, index: int, array: np.ndarray) -> np.ndarray:
    """In the element type of a node's input."""
    value = node.inputs[index]
    dtype = value.dtype if value is not None and value.dtype is not None else ir.DataType.FLOAT
    return array.astype(dtype.numpy())
