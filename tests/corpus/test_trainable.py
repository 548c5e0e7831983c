"""Every real model trains, or says by name what stands in the way.

Opt-in (`make test-corpus`): MODELPRESS_CORPUS names the folder of ONNX files. Any folder will do.
"""

import os
from pathlib import Path

import pytest

from benchmarks.trainable_models import made_up, measure
from compression.graph import all_graphs, load, save
from compression.graph.operators import is_quantized_operator
from compression.graph.trainable import TrainableGraph, check_agreement, obstacles, write_back

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(300)]
FOLDER = Path(os.environ.get("MODELPRESS_CORPUS", ".corpus"))
MODELS = sorted(FOLDER.glob("*.onnx"))


@pytest.fixture(params=MODELS or [None], ids=lambda path: path.stem if path else "none")
def path(request: pytest.FixtureRequest) -> Path:
    if request.param is None:
        pytest.skip("no models: run `make test-corpus`")
    return Path(request.param)


def test_a_real_model_agrees_with_onnxruntime_or_names_the_obstacle(path: Path) -> None:
    model = load(path)
    found = obstacles(model)
    if found:
        assert all(obstacle.reason for obstacle in found)
        assert all(obstacle.node and obstacle.count > 0 for obstacle in found if obstacle.operator)
        pytest.skip(f"not trained: {found[0].count} x {found[0].operator}: {found[0].reason}")
    view = TrainableGraph(model)
    print(f"{path.stem}: error {check_agreement(view, model, made_up(model)):.1e}")
    assert view.weights


def test_a_real_model_gets_gradients(path: Path) -> None:
    """The other branch of an If may hold half of the weights; a quantized model turns biases into integers."""
    model = load(path)
    quantized = any(is_quantized_operator(node) for graph in all_graphs(model) for node in graph)
    measured = measure(path.stem, model)
    if measured.reason:
        pytest.skip(measured.reason)
    assert measured.with_gradient > (0 if quantized else 0.4 * measured.weights)


def test_a_real_model_is_written_back_byte_for_byte(path: Path, tmp_path: Path) -> None:
    model = load(path)
    if obstacles(model):
        pytest.skip("not trained")
    save(model, tmp_path / "before.onnx")
    assert write_back(TrainableGraph(model), model) == 0
    save(model, tmp_path / "after.onnx")
    assert (tmp_path / "before.onnx").read_bytes() == (tmp_path / "after.onnx").read_bytes()
