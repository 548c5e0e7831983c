"""Students derived from a teacher: in which order, what is told of them, and when there can be none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compression.distillation.settings import Derive
from compression.distillation.student import derive, other_model
from compression.errors import NotApplicable
from compression.graph import load, save
from compression.method import StepContext
from tests.compression.distillation.networks import convolutional_network, digits, residual_network
from tests.compression.models import weights_of
from tests.compression.training.learning import arrays, mlp

FEEDS = {"image": digits()[0][:32]}


@pytest.fixture
def context(tmp_path: Path) -> StepContext:
    return StepContext(
        workdir=tmp_path, data={}, device="cpu", threads=1, seed=0, report=lambda fraction, message: None
    )


def test_shallower_then_narrower_then_fresh(tmp_path: Path, context: StepContext) -> None:
    path = residual_network(tmp_path / "m.onnx")
    model = load(path)
    found = derive(model, Derive(width=0.5, depth=0.5, weights="reinitialised"), FEEDS, context)
    assert {name for name in found.dropped if not name.endswith("relu")} == {
        *("b0.first", "b0.second", "b1.first", "b1.second"),
    }
    assert found.dropped["b1.second"] == "dropped with the block b1.first"
    assert found.narrowed == {"stem", "b2.first", "b2.second", "b3.first", "b3.second", "head"}
    assert found.fresh == found.narrowed
    assert found.words("head") == "narrowed and reinitialised"
    assert found.words("b0.first") == ""
    left = arrays(model)
    assert left["b2.first.w"].shape == (12, 12) and left["head.w"].shape == (10, 12)
    blocks, channels, fresh = found.notes
    assert blocks.startswith(
        "residual blocks dropped, with the relative error that each alone makes: b0.first ("
    )
    assert channels == "36 channels of 3 groups left the student"
    assert fresh == "random weights to begin with: 6 layers"


def test_pruned_weights_are_the_teachers(tmp_path: Path, context: StepContext) -> None:
    """Without reinitialising, what stays is a part of what was, to the bit."""
    path = residual_network(tmp_path / "m.onnx", blocks=1)
    model = load(path)
    found = derive(model, Derive(width=0.5), FEEDS, context)
    before, after = weights_of(path)["stem.w"], arrays(model)["stem.w"]
    assert not found.fresh and after.shape == (12, 64)
    assert {row.tobytes() for row in after} <= {row.tobytes() for row in before}


def test_layers_that_must_not_change(tmp_path: Path, context: StepContext) -> None:
    path = residual_network(tmp_path / "m.onnx")
    model = load(path)
    settings = Derive(width=0.5, weights="reinitialised")
    found = derive(model, settings, FEEDS, context, untouched={"stem", "b3.second"})
    before, after = weights_of(path), arrays(model)
    for name in ("stem.w", "b3.second.w"):
        assert after[name].tobytes() == before[name].tobytes()
    assert found.fresh.isdisjoint({"stem", "b3.second"})
    everything = {"stem", "head", *(f"b{n}.{part}" for n in range(4) for part in ("first", "second"))}
    (note,) = derive(load(path), Derive(width=0.5), FEEDS, context, untouched=everything).notes
    assert note == "no channels left the student: all groups touch layers that are not selected"


def test_what_has_no_blocks_cannot_be_shallower(tmp_path: Path, context: StepContext) -> None:
    with pytest.raises(NotApplicable, match="no residual blocks") as caught:
        derive(mlp(tmp_path / "m"), Derive(depth=0.5), FEEDS, context)
    assert caught.value.where == "derive.depth" and "by width" in (caught.value.hint or "")


def test_another_model_takes_our_names(tmp_path: Path, context: StepContext) -> None:
    """A teacher keeps the axes that it fixes; a student is refused where it fixes what ours leaves open."""
    fixed = mlp(tmp_path / "fixed", batch=4)
    for value, name in zip((*fixed.graph.inputs, *fixed.graph.outputs), ("x", "y"), strict=True):
        value.name = name
    (path,) = save(fixed, tmp_path / "other.onnx")
    ours, id = mlp(tmp_path / "ours"), "mdl_" + "3" * 26
    given = replace(context, models={id: path})
    teacher = other_model(id, ours, "teacher", given)
    assert teacher.graph.inputs[0].name == "image"
    assert list(teacher.graph.inputs[0].shape or ()) == [4, 64]
    with pytest.raises(NotApplicable, match="student's input 'x' is"):
        other_model(id, ours, "student", given)
    assert np.array_equal(arrays(teacher)["first.w"], arrays(fixed)["first.w"])


def test_a_convolutional_teacher(tmp_path: Path, context: StepContext) -> None:
    model = load(convolutional_network(tmp_path / "m.onnx"))
    found = derive(model, Derive(width=0.25), {"image": FEEDS["image"].reshape(-1, 1, 8, 8)}, context)
    assert arrays(model)["conv2.w"].shape == (8, 4, 3, 3)
    assert found.narrowed == {"conv1", "conv2", "hidden", "head"}
