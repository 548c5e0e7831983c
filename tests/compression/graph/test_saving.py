"""Models too large for one file keep their weights beside it; the limit is lowered here to be quick."""

import numpy as np
import onnx
import onnx_ir as ir

from compression.graph import interface, layers, load, replace_weight, save, saving, summarise
from compression.runtime import open_session, run
from tests.compression.graph.running import answers, assert_same, random, write
from tests.compression.models import images, small_model

TEXT = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,64] x) => (float[N,64] y) {y = MatMul(x, w)}'


def test_a_large_model_keeps_its_weights_beside_it(tmp_path, monkeypatch):
    path = write(tmp_path / "m.onnx", TEXT, w=random(64, 64))
    feeds = {"x": random(2, 64)}
    monkeypatch.setattr(saving, "SINGLE_FILE_BYTES", 1000)
    folder = tmp_path / "out"
    folder.mkdir()
    files = save(load(path), folder / "big.onnx")
    assert [file.name for file in files] == ["big.onnx", "big.onnx.data"]
    assert files[1].stat().st_size == 64 * 64 * 4
    assert_same(answers(path, feeds), answers(files[0], feeds), rtol=0)

    model = load(files[0])
    values = model.graph.initializers["w"].const_value.numpy()
    assert summarise(model, size_bytes=1).external_data
    np.testing.assert_array_equal(values, random(64, 64))
    assert_same(answers(path, feeds), run(open_session(model, device="cpu", threads=1), feeds), rtol=0)


def test_a_model_may_be_saved_over_the_file_it_was_loaded_from(tmp_path, monkeypatch):
    path = write(tmp_path / "m.onnx", TEXT, w=random(64, 64))
    monkeypatch.setattr(saving, "SINGLE_FILE_BYTES", 1000)
    feeds = {"x": random(2, 64)}
    expected = answers(path, feeds)
    save(load(path), path)
    save(load(path), path)
    assert_same(expected, answers(path, feeds), rtol=0)


def test_saving_leaves_the_model_as_it_was(tmp_path):
    model = load(small_model(tmp_path / "m.onnx"))
    before = list(model.graph.initializers), interface(model)
    first = save(model, tmp_path / "a.onnx")[0].read_bytes()
    assert (list(model.graph.initializers), interface(model)) == before
    assert first == save(model, tmp_path / "a.onnx")[0].read_bytes()


def test_a_replaced_weight_is_written(tmp_path):
    model = load(small_model(tmp_path / "m.onnx"))
    layer = next(layer for layer in layers(model) if layer.name == "conv2")
    weight = layer.weights[0].const_value.numpy()
    replace_weight(layer, ir.tensor(np.zeros_like(weight)))
    (saved,) = save(model, tmp_path / "out.onnx")
    stored = {tensor.name: tensor for tensor in onnx.load(saved).graph.initializer}
    assert not onnx.numpy_helper.to_array(stored["conv2.w"]).any()
    assert answers(saved, {"image": images(1)})["logits"].shape == (1, 10)


def test_stored_tensors_say_their_types_once(tmp_path):
    path = write(tmp_path / "m.onnx", TEXT, w=random(64, 64), small=random(4))
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        model.graph.value_info.append(onnx.helper.make_tensor_value_info(tensor.name, 1, tensor.dims))
    onnx.save(model, path)
    (saved,) = save(load(path), tmp_path / "out.onnx")
    graph = onnx.load(saved).graph
    assert {tensor.name for tensor in graph.initializer} == {"w", "small"}
    assert not graph.value_info
