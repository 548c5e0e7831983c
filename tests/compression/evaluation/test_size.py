import zlib

import numpy as np
import onnx_ir as ir

from compression.evaluation.size import deflate_level, deflated_bytes, model_files, size_bytes
from compression.graph import load


def saved(folder, external):
    weight = ir.Value(name="w", const_value=ir.tensor(np.zeros((256, 256), np.float32), name="w"))
    fed = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1, 256]))
    node = ir.node("MatMul", [fed, weight])
    graph = ir.Graph(
        [fed], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 18}, name="g"
    )
    path = folder / "model.onnx"
    ir.save(ir.Model(graph, ir_version=10), path, external_data="weights.bin" if external else None)
    return path


def test_one_file(tmp_path):
    path = saved(tmp_path, external=False)
    assert model_files(path, load(path)) == (path,)
    assert size_bytes([path]) == path.stat().st_size > 256 * 256 * 4


def test_external_data_counts(tmp_path):
    path = saved(tmp_path, external=True)
    files = model_files(path, load(path))
    assert [file.name for file in files] == ["model.onnx", "weights.bin"]
    assert size_bytes(files) == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size


def test_deflate_is_zlibs_over_several_chunks(tmp_path):
    data = np.random.default_rng(0).integers(0, 4, 3_000_000, dtype=np.uint8).tobytes()
    path = tmp_path / "data"
    path.write_bytes(data)
    assert abs(deflated_bytes([path]) - len(zlib.compress(data, 6, wbits=-15))) < 100
    assert deflated_bytes([path, path]) == 2 * deflated_bytes([path])


def test_zeros_deflate_to_nearly_nothing(tmp_path):
    path = tmp_path / "zeros"
    path.write_bytes(bytes(1 << 20))
    assert deflated_bytes([path]) < 2000


def test_both_models_take_the_level_of_the_larger():
    assert deflate_level(1000) == 6
    assert deflate_level(1 << 30) == 1
