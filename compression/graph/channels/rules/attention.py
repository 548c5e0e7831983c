"""Attention as one operator: heads, the dimensions that queries and keys share, and those of the values."""

from collections.abc import Sequence
from math import sqrt

import numpy as np
import onnx_ir as ir

from compression.graph.channels import joining, lining
from compression.graph.channels.attributes import integer, integers
from compression.graph.channels.edits import Shears
from compression.graph.channels.labels import Label, Labels, size_of, vectors
from compression.graph.channels.notes import Unreadable
from compression.graph.channels.reading import Reading, Rule
from compression.graph.channels.rules.elementwise import joined
from compression.graph.channels.sizes import Size

Heads = tuple[Label, Label, Label]
"""Heads, steps, dimensions of one head."""


def attention(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """ONNX's own: Q, K, V as (batch, steps, heads * size) or (batch, heads, steps, size)."""
    counts = ("q_num_heads", "kv_num_heads", "kv_num_heads")
    given = [reading.axes(node, index) for index in range(3)]
    query, key, value = (
        _heads(reading, node, labels, name) for labels, name in zip(given, counts, strict=True)
    )
    _attend(reading, node, query, key, value)
    reading.contract(node, 0, len(given[0]) - 1, given[0][-1])
    batch = given[0][0]
    _mask(reading, node, 3, (batch, query[0], query[1], key[1]))
    for index, (heads, _, size) in ((4, key), (5, value)):
        _cache(reading, node, index, heads, size)
    out = _as_given(reading, given[0], query[0], query[1], value[2])
    caches = [_cached(reading, node, batch, part) for part in (key, value)]
    scores = (batch, query[0], query[1], reading.rigid(reading.inferred_size(node.outputs[0], 9), node))
    return [out, *caches, scores][: len(node.outputs)]


def multi_head(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """com.microsoft's MultiHeadAttention: query, key, value, bias, padding, added scores, past key and value."""
    given = [reading.axes(node, index) for index in range(3)]
    if any(len(labels) not in (3, 4) for labels in given):
        raise Unreadable
    query, key, value = (_heads(reading, node, labels, "num_heads") for labels in given)
    _attend(reading, node, query, key, value)
    reading.contract(node, 0, len(given[0]) - 1, given[0][-1])
    bias = reading.optional_axes(node, 3)
    if bias is not None:
        widths = [_width(reading, part) for part in (query, key, value)]
        reading.join(bias[0], lining.chain(reading.units, widths))
        reading.contract(node, 3, 0, bias[0])
    batch = given[0][0]
    _mask(reading, node, 5, (batch, query[0], query[1], key[1]))
    for index, (heads, _, size) in ((6, key), (7, value)):
        _cache(reading, node, index, heads, size)
    caches = [_cached(reading, node, batch, part) for part in (key, value)]
    return [_as_given(reading, given[0], query[0], query[1], value[2]), *caches][: len(node.outputs)]


def group_query(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """com.microsoft's GroupQueryAttention: heads may leave, their dimensions stay (they may be rotated inside)."""
    given = [reading.axes(node, index) for index in range(3)]
    counts = ("num_heads", "kv_num_heads", "kv_num_heads")
    query, key, value = (
        _heads(reading, node, labels, name) for labels, name in zip(given, counts, strict=True)
    )
    _attend(reading, node, query, key, value)
    for label in (query[2], value[2]):
        reading.lock(label, node, "has heads of a fixed size")
    for index, (heads, _, size) in ((3, key), (4, value)):
        _cache(reading, node, index, heads, size)
    caches = [_cached(reading, node, given[0][0], part) for part in (key, value)]
    return [_as_given(reading, given[0], query[0], query[1], value[2]), *caches][: len(node.outputs)]


def projecting(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """com.microsoft's Attention: W (inputs, queries + keys + values) projects the input first."""
    data, weight = reading.axes(node, 0), reading.axes(node, 1)
    reading.join(data[2], weight[0])
    reading.contract(node, 0, 2, data[2])
    reading.sums(weight[0])
    reading.makes(node, 2, weight[1])
    total = size_of(weight[1]).number
    sizes = integers(node, "qkv_hidden_sizes") or (total // 3,) * 3
    borders = np.cumsum([0, *sizes]).tolist()
    parts = [lining.part(reading.units, weight[1], borders[index], borders[index + 1]) for index in range(3)]
    given = [(data[0], data[1], part) for part in parts]
    query, key, value = (_heads(reading, node, labels, "num_heads") for labels in given)
    _attend(reading, node, query, key, value)
    reading.contract(node, 1, 1, weight[1])
    bias = reading.optional_axes(node, 2)
    if bias is not None:
        reading.join(bias[0], weight[1])
        reading.contract(node, 2, 0, bias[0])
    reading.mend(node, parts, lambda shears: _write_sizes(shears, node, parts))
    _mask(reading, node, 5, (data[0], query[0], query[1], key[1]))
    if len(node.outputs) > 1 or reading.optional_axes(node, 4) is not None:
        for label in (query[0], value[2]):
            reading.lock(label, node, "keeps them in its past")
    return [(data[0], data[1], _width(reading, (query[0], query[1], value[2]))), None][: len(node.outputs)]


def _write_sizes(shears: Shears, node: ir.Node, parts: Sequence[Label]) -> None:
    sizes = [shears.size(part) for part in parts]
    node.attributes["qkv_hidden_sizes"] = ir.AttrInt64s("qkv_hidden_sizes", sizes)


def _heads(reading: Reading, node: ir.Node, labels: Labels, attribute: str) -> Heads:
    """Of (batch, steps, heads * size), whose attribute is mended, or (batch, heads, steps, size)."""
    if len(labels) == 4:
        heads, steps, size = labels[1:]
    else:
        steps = labels[1]
        heads, size = joining.split(reading.units, labels[2], max(integer(node, attribute, 1), 1))
        reading.mend(node, [heads], lambda shears: shears.set_attribute(node, attribute, shears.size(heads)))
    reading.heads += vectors(heads)
    for label in (labels[0], steps):
        reading.lock(label, node, "runs over them")
    return heads, steps, size


def _attend(reading: Reading, node: ir.Node, query: Heads, key: Heads, value: Heads) -> None:
    """Several heads of queries may share one of keys: then those leave together with it."""
    _keep_scale(reading, node, query[2])
    reading.join(query[2], key[2])
    reading.join(key[0], value[0])
    shared = size_of(key[0])
    if shared.known and shared != size_of(query[0]) and shared.number:
        reading.join(joining.split(reading.units, query[0], shared.number)[0], key[0])
    else:
        reading.join(query[0], key[0])


def _keep_scale(reading: Reading, node: ir.Node, size: Label) -> None:
    """The default is 1 / sqrt(size of a head), which must stay what it was."""
    attribute = node.attributes.get("scale")
    given = attribute is not None and not attribute.is_ref() and attribute.as_float() != 0.0
    if not given and size_of(size).known:
        scale = 1 / sqrt(size_of(size).number)
        reading.mend(
            node, [size], lambda _: node.attributes.update({"scale": ir.AttrFloat32("scale", scale)})
        )


def _mask(reading: Reading, node: ir.Node, index: int, scores: Labels) -> None:
    labels = reading.optional_axes(node, index)
    if labels is not None:
        joined(reading, [scores[:-1], labels[:-1]] if len(labels) == len(scores) else [scores, labels])


def _cache(reading: Reading, node: ir.Node, index: int, heads: Label, size: Label) -> None:
    labels = reading.optional_axes(node, index)
    if labels is not None and len(labels) == 4:
        reading.join(heads, labels[1])
        reading.join(size, labels[3])


def _cached(reading: Reading, node: ir.Node, batch: Label, part: Heads) -> Labels:
    heads, _, size = part
    return (batch, heads, reading.rigid(Size(1, (f"{node.name} cached",)), node), size)


def _width(reading: Reading, part: Heads) -> Label:
    return lining.merge(reading.units, [part[0], part[2]])


def _as_given(reading: Reading, given: Labels, heads: Label, steps: Label, size: Label) -> Labels:
    if len(given) == 4:
        return (given[0], heads, steps, size)
    return (given[0], steps, lining.merge(reading.units, [heads, size]))


def rotary(reading: Reading, node: ir.Node) -> Sequence[Labels | None]:
    """Pairs of dimensions are turned by one angle, in all heads alike: they leave together."""
    data = reading.axes(node, 0)
    first = 2 if node.domain == "com.microsoft" else 1
    for label in (data[0], data[-2]):
        reading.lock(label, node, "turns each by its place")
    if len(data) == 4:
        size = data[3]
    elif integer(node, "num_heads", 0):
        heads, size = joining.split(reading.units, data[2], integer(node, "num_heads", 0))
        reading.mend(
            node, [heads], lambda shears: shears.set_attribute(node, "num_heads", shears.size(heads))
        )
    else:
        raise Unreadable
    tables = [reading.axes(node, first), reading.axes(node, first + 1)]
    whole = size_of(tables[0][-1]) * Size(2) == size_of(size)
    if whole and not integer(node, "interleaved", 0) and not integer(node, "rotary_embedding_dim", 0):
        half = joining.fold(reading.units, size, 2)
        for table in tables:
            reading.join(half, table[-1])
    else:
        reading.lock(size, node, "turns them in pairs")
    return [data]


ATTENTION: dict[str, Rule] = {
    "Attention": attention,
    "RotaryEmbedding": rotary,
    "com.microsoft::Attention": projecting,
    "com.microsoft::GroupQueryAttention": group_query,
    "com.microsoft::MultiHeadAttention": multi_head,
    "com.microsoft::RotaryEmbedding": rotary,
}
