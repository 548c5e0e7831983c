"""Every architecture of the zoo: half of each group leaves, and the result is sound, smaller and proven."""

import numpy as np
import pytest

from compression.graph import load
from compression.graph.channels import TOLERANCE, cut, find_groups, prove
from tests.compression import zoo
from tests.compression.graph.channels.cutting import cut_and_prove, doomed

QUICK = frozenset({"resnet", "shufflenet2", "mobilenet", "vit", "llama"})
"""The others are exported in the long run only; their operators are tried by test_rules."""


def _marked(name: str) -> object:
    return pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)


@pytest.fixture(params=[_marked(name) for name in zoo.NAMES])
def network(request, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(zoo.exported(request.param))
    return request.param, path


def test_half_of_every_group_leaves(network):
    name, path = network
    cut_and_prove(path, zoo.feeds(name))
    cut_and_prove(path, zoo.feeds(name), share=0.3, seed=1)


def test_one_unit_of_every_group_is_enough(network):
    name, path = network
    original, model = load(path), load(path)
    chosen = {group.id: range(1, group.size) for group in find_groups(model).groups}
    cut(model, chosen)
    assert prove(original, model, chosen, zoo.feeds(name)) <= TOLERANCE


def test_every_group_alone(network):
    name, path = network
    original = load(path)
    for group in find_groups(original).groups:
        chosen = {group.id: [0]}
        model = load(path)
        cut(model, chosen)
        assert prove(original, model, chosen, zoo.feeds(name)) <= TOLERANCE, group.id


def test_slots_tell_what_shrinks(network):
    """The positions named for the doomed units are those that are gone, in every tensor of the group."""
    _, path = network
    original, model = load(path), load(path)
    grouping = find_groups(original)
    group = grouping.groups[0]
    cut(model, {group.id: [0]})
    for slot in group.slots:
        assert slot.indices.shape[0] == group.size
        assert len(np.unique(slot.indices)) == slot.indices.size
    for value in {slot.value for slot in group.slots}:
        expected = value.const_value.numpy()
        for slot in group.slots:
            if slot.value is value:
                expected = np.delete(expected, slot.indices[0], axis=slot.axis)
        left = model.graph.initializers.get(value.name)
        if left is not None and left.shape != value.shape:
            np.testing.assert_array_equal(left.const_value.numpy(), expected)


WIDE = [_marked(name) for name in ("convnext", "vit", "bert", "gpt", "llama", "swin")]


@pytest.mark.parametrize("name", WIDE)
def test_widths_through_normalizations(name, tmp_path):
    """The residual stream leaves too; statistics are then held against those over the units that stay."""
    path = tmp_path / "model.onnx"
    path.write_bytes(zoo.exported(name))
    assert not any(group.restates for group in find_groups(load(path)).groups)
    assert (
        any(len(group.restates) > 1 for group in find_groups(load(path), widths=True).groups)
        or name == "convnext"
    )
    cut_and_prove(path, zoo.feeds(name), widths=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "shufflenet2", "vit", "llama"])
def test_graphs_as_exported_without_optimization(name, tmp_path):
    """With BatchNormalization and all constant arithmetic still in the graph."""
    path = tmp_path / "model.onnx"
    path.write_bytes(zoo.exported(name, fused=False))
    cut_and_prove(path, zoo.feeds(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", zoo.NAMES)
def test_graphs_of_the_older_exporter(name, tmp_path):
    """Traced, so that shapes are computed from shapes inside the graph."""
    path = tmp_path / "model.onnx"
    path.write_bytes(zoo.traced(name))
    cut_and_prove(path, zoo.feeds(name))
    cut_and_prove(path, zoo.feeds(name), share=0.3, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit", "bert", "gpt", "llama", "encoder"])
def test_attention_as_one_operator(name, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(zoo.exported(name, opset=23))
    cut_and_prove(path, zoo.feeds(name))


@pytest.mark.parametrize("seed", range(5))
def test_any_choice_of_units(seed, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(zoo.exported("shufflenet2"))
    original, model = load(path), load(path)
    random = np.random.default_rng(seed)
    grouping = find_groups(model)
    chosen = {**doomed(grouping, random.uniform(0.1, 0.9), seed)}
    for name in random.permutation(list(chosen))[: len(chosen) // 2]:
        del chosen[name]
    cut(model, chosen)
    assert prove(original, model, chosen, zoo.feeds("shufflenet2")) <= TOLERANCE
