"""The view computes what onnxruntime computes, with right gradients, and forgets what nothing reads."""

import copy
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from compression.errors import NotTrainable
from compression.graph import load
from compression.graph.trainable import TrainableGraph, check_agreement
from compression.graph.trainable.program import Numbers, compile_graph
from tests.compression.graph.running import random
from tests.compression.graph.trainable.building import (
    BRANCHES,
    BRANCHES_WEIGHTS,
    LOOP,
    MLP,
    MLP_WEIGHTS,
    SCAN,
    loaded,
)
from tests.compression.models import small_model


def mlp(tmp_path: Path) -> ir.Model:
    return loaded(tmp_path / "mlp.onnx", MLP, **MLP_WEIGHTS)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_small_network_agrees_with_onnxruntime(tmp_path: Path, dtype: type) -> None:
    model = load(small_model(tmp_path / "model.onnx", dtype=dtype))
    view = TrainableGraph(model)
    check_agreement(view, model, {"image": random(4, 3, 8, 8).astype(dtype)})
    assert {tensor.dtype for tensor in view.weights.values()} == {torch.float32}


def test_gradients_are_the_slopes(tmp_path: Path) -> None:
    """Against central differences in float64, whose error is about the square of the step."""
    model = loaded(
        tmp_path / "mlp.onnx",
        MLP.replace("float", "double"),
        **{name: random(*shape, seed=3).astype(np.float64) for name, shape in MLP_WEIGHTS.items()},
    )
    view = TrainableGraph(model)
    feeds = {"x": torch.from_numpy(random(5, 8).astype(np.float64))}
    view(feeds)["y"].square().mean().backward()
    step = 1e-5
    for parameter in view.weights.values():
        slopes = torch.zeros_like(parameter)
        with torch.no_grad():
            for index in np.ndindex(*parameter.shape):
                losses = []
                for sign in (1, -1):
                    parameter[index] += sign * step
                    losses.append(view(feeds)["y"].square().mean())
                    parameter[index] -= sign * step
                slopes[index] = (losses[0] - losses[1]) / (2 * step)
        torch.testing.assert_close(parameter.grad, slopes, rtol=1e-6, atol=1e-8)


def test_taps_give_values_in_between(tmp_path: Path) -> None:
    view = TrainableGraph(mlp(tmp_path))
    answers = view({"x": torch.ones(2, 8)}, taps=["h", "r", "w1"])
    assert list(answers) == ["h", "r", "w1", "y"]
    torch.testing.assert_close(answers["r"], torch.tanh(answers["h"]))
    with pytest.raises(NotTrainable, match="no value 'nothing'"):
        view({"x": torch.ones(2, 8)}, taps=["nothing"])


def test_every_value_in_between_is_freed_once_after_its_last_use(tmp_path: Path) -> None:
    model = mlp(tmp_path)
    program = compile_graph(model.graph, model.opset_imports, Numbers())
    freed = [number for step in program.steps for number in step.last_uses]
    made = {number for step in program.steps for number in step.outputs}
    assert len(freed) == len(set(freed))
    assert set(freed) == (made | set(program.inputs)) - set(program.outputs)
    for place, step in enumerate(program.steps):
        later = {number for following in program.steps[place + 1 :] for number in following.inputs}
        assert not later.intersection(step.last_uses)


@pytest.mark.parametrize(("mode", "moves"), [("batch", True), ("frozen", False)])
def test_batch_statistics_count_only_in_training_and_when_asked_for(
    tmp_path: Path, mode: str, moves: bool
) -> None:
    view = TrainableGraph(load(small_model(tmp_path / "model.onnx")))
    assert set(view.statistics) == {"bn1.mean", "bn1.var"}
    view.batch_norm = mode  # type: ignore[assignment]
    image = torch.from_numpy(random(4, 3, 8, 8))
    before = {name: value.clone() for name, value in view.statistics.items()}
    still = view.eval()({"image": image})["logits"]
    assert all(torch.equal(before[name], value) for name, value in view.statistics.items())
    trained = view.train()({"image": image})["logits"]
    assert torch.equal(still, trained) is not moves
    assert all(torch.equal(before[name], value) is not moves for name, value in view.statistics.items())


@pytest.mark.parametrize("sign", [1, -1])
def test_the_branch_that_the_data_chooses_gets_the_gradient(tmp_path: Path, sign: int) -> None:
    model = loaded(tmp_path / "if.onnx", BRANCHES, **BRANCHES_WEIGHTS)
    view = TrainableGraph(model)
    x = (sign * np.abs(random(3, 4))).astype(np.float32)
    check_agreement(view, model, {"x": x})
    view({"x": torch.from_numpy(x)})["y"].sum().backward()
    taken, other = ("w1", "w2") if sign > 0 else ("w2", "w1")
    assert view.weights[taken].grad is not None
    assert view.weights[other].grad is None


@pytest.mark.parametrize("passes", [3, 1])
def test_a_loop_is_run_and_trained_through(tmp_path: Path, passes: int) -> None:
    model = loaded(tmp_path / "loop.onnx", LOOP, w=(4, 4))
    view = TrainableGraph(model)
    feeds = {"x": random(2, 4), "n": np.asarray(passes)}
    check_agreement(view, model, feeds)
    view({name: torch.from_numpy(array) for name, array in feeds.items()})["last"].sum().backward()
    assert view.weights["w"].grad is not None


def test_a_scan_is_run_and_trained_through(tmp_path: Path) -> None:
    model = loaded(tmp_path / "scan.onnx", SCAN, w=(4, 4))
    view = TrainableGraph(model)
    feeds = {"start": random(2, 4), "x": random(5, 2, 4)}
    check_agreement(view, model, feeds)
    answers = view({name: torch.from_numpy(array) for name, array in feeds.items()})
    answers["all"].sum().backward()
    assert view.weights["w"].grad is not None


def test_feeds_that_do_not_fit_are_named(tmp_path: Path) -> None:
    view = TrainableGraph(mlp(tmp_path))
    with pytest.raises(NotTrainable, match="'x' is not fed"):
        view({})
    with pytest.raises(NotTrainable, match="no input 'z'"):
        view({"x": torch.ones(2, 8), "z": torch.ones(1)})
    with pytest.raises(NotTrainable, match="Gemm fails here") as caught:
        view({"x": torch.ones(2, 9)})
    assert caught.value.where == "Gemm_0"


def test_an_unknown_operator_is_named_with_its_node_and_count(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (float[N,8] y) {
        [first] a = RandomUniformLike(x)
        b = RandomUniformLike(a)
        y = Mul(b, w)
    }"""
    with pytest.raises(
        NotTrainable, match="does not know RandomUniformLike, of which the model has 2"
    ) as caught:
        TrainableGraph(loaded(tmp_path / "random.onnx", text, w=(8,)))
    assert caught.value.where is not None


def test_copies_stand_on_their_own(tmp_path: Path) -> None:
    view = TrainableGraph(mlp(tmp_path))
    other = copy.deepcopy(view)
    x = torch.ones(2, 8)
    with torch.no_grad():
        other.weights["b2"].add_(1)
    torch.testing.assert_close(other({"x": x})["y"], view({"x": x})["y"] + 1)
    view.load_state_dict(other.state_dict())
    assert torch.equal(other({"x": x})["y"], view({"x": x})["y"])


def test_shapes_and_settings_are_read_without_asking_the_device(tmp_path: Path) -> None:
    """The meta device holds no data: whatever would have to be fetched from a GPU fails there."""
    text = """<ir_version: 8, opset_import: ["" : 18]> g (float[N,8] x) => (float[M,K] y, int64[2] z) {
        low = Constant<value = float {0.0}>()
        six = Constant<value = float {6.0}>()
        two = Constant<value = float[1] {2.0}>()
        axis = Constant<value = int64[1] {1}>()
        end = Constant<value = int64[1] {5}>()
        zero = Constant<value = int64[1] {0}>()
        c = Clip(x, low, six)
        p = Pow(c, two)
        r = ReduceSum(p, axis)
        d = Div(p, r)
        part = Slice(d, zero, end, axis)
        m = MatMul(part, w)
        s = Shape(x)
        z = Add(s, s)
        back = Concat<axis=0>(axis, z)
        e = Expand(m, back)
        f = Constant<value = int64[2] {0, -1}>()
        y = Reshape(e, f)
    }"""
    view = TrainableGraph(loaded(tmp_path / "model.onnx", text, w=(5, 16)), device="meta")
    answers = view({"x": torch.ones(1, 8, device="meta").expand(2, 8)[:1]})
    assert answers["y"].device.type == "meta"
    assert answers["y"].shape == (1, 2 * 16)
    assert answers["z"].tolist() == [2, 16]


def test_shapes_are_exact_and_stay_integers(tmp_path: Path) -> None:
    """2**24 + 1 is the first whole number that float32 cannot hold."""
    text = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,8] x) => (int64[2] y) {
        s = Shape(x)
        big = Constant<value = int64[1] {16777217}>()
        y = Mul(s, big)
    }"""
    model = loaded(tmp_path / "shape.onnx", text)
    answer = TrainableGraph(model)({"x": torch.ones(3, 8)})["y"]
    assert answer.dtype == torch.int64
    assert answer.tolist() == [3 * 16777217, 8 * 16777217]
