"""Sessions open on files and on models in memory, and errors come out as the library's own."""

import numpy as np
import onnx
import pytest

from compression import runtime
from compression.errors import DataMismatch, InvalidModel, ResultRejected
from compression.graph import load
from tests.compression.models import images, small_model


def test_a_file_and_its_loaded_model_answer_alike(tmp_path):
    path = small_model(tmp_path / "m.onnx")
    feeds = {"image": images(3)}
    first = runtime.run(runtime.open_session(path, device="cpu", threads=1), feeds)
    second = runtime.run(runtime.open_session(load(path), device="cpu", threads=1), feeds)
    assert list(first) == ["logits"]
    np.testing.assert_array_equal(first["logits"], second["logits"])


def test_values_in_between_are_returned_and_the_model_stays(tmp_path):
    model = load(small_model(tmp_path / "m.onnx"))
    session = runtime.open_session(model, device="cpu", threads=1, outputs=["c1", "r1"], optimize=False)
    results = runtime.run(session, {"image": images(2)})
    assert list(results) == ["logits", "c1", "r1"]
    assert results["c1"].shape == (2, 8, 8, 8)
    assert (results["r1"] >= 0).all()
    assert [value.name for value in model.graph.outputs] == ["logits"]


def test_an_unknown_value_is_named(tmp_path):
    with pytest.raises(ResultRejected, match="nothing"):
        runtime.open_session(
            load(small_model(tmp_path / "m.onnx")), device="cpu", threads=1, outputs=["nothing"]
        )


def test_a_file_that_does_not_open_is_invalid_and_a_made_model_is_rejected(tmp_path):
    path = small_model(tmp_path / "m.onnx")
    broken = onnx.load(path)
    broken.graph.node[0].input[0] = "absent"
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(broken.SerializeToString())
    with pytest.raises(InvalidModel, match="does not open"):
        runtime.open_session(bad, device="cpu", threads=1)
    model = load(path)
    model.graph[0].op_type = "Flatten"
    with pytest.raises(ResultRejected):
        runtime.open_session(model, device="cpu", threads=1)


@pytest.mark.parametrize("feeds", [{}, {"image": np.zeros((1, 4, 8, 8), np.float32)}, {"image": np.zeros(3)}])
def test_feeds_that_do_not_fit_are_a_mismatch(tmp_path, feeds):
    session = runtime.open_session(small_model(tmp_path / "m.onnx"), device="cpu", threads=1)
    with pytest.raises(DataMismatch):
        runtime.run(session, feeds)


def test_this_machine_is_described():
    assert "cpu" in runtime.available_devices()
    assert "onnxruntime" in runtime.device_description("cpu")
    assert isinstance(runtime.has_vnni(), bool)


def test_a_missing_device_is_refused(tmp_path):
    if "cuda" in runtime.available_devices():
        pytest.skip("this machine has one")
    with pytest.raises(InvalidModel, match="cuda"):
        runtime.open_session(small_model(tmp_path / "m.onnx"), device="cuda", threads=1)


def test_values_asked_for_in_between_are_no_outputs_afterwards(tmp_path):
    model = load(small_model(tmp_path / "m.onnx"))
    value = next(value for node in model.graph for value in node.outputs if value.name == "r1")
    runtime.open_session(model, device="cpu", threads=1, outputs=["r1"])
    assert not value.is_graph_output()
    assert [output.name for output in model.graph.outputs] == ["logits"]
