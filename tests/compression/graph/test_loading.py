"""What is taken, in one form; what is foreign, broken or hostile, with the reason."""

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compression.errors import InvalidModel, UnsupportedModel
from compression.graph import interface, layers, load, save, summarise
from tests.compression.graph.running import answers, assert_same, random, write
from tests.compression.models import images, small_model

MATMUL = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,3] y) {y = MatMul(x, w)}'


def external_model(folder: Path, *, location: str = "w.bin", length: int = 48, offset: int = 0) -> Path:
    """MatMul whose 48 bytes of weights are said to lie in a file beside it, which is there."""
    (folder / "w.bin").write_bytes(random(4, 3).tobytes())
    model = onnx.parser.parse_model(MATMUL)
    tensor = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=TensorProto.EXTERNAL
    )
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_read_and_saved_into_one_file(tmp_path):
    path = external_model(tmp_path)
    feeds = {"x": random(5, 4, seed=1)}
    expected = answers(path, feeds)
    folder = tmp_path / "out"
    folder.mkdir()
    (saved,) = save(load(path), folder / "m.onnx")
    assert_same(expected, answers(saved, feeds), rtol=0)
    assert [file.name for file in folder.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    "claim",
    [
        {"location": "../secret"},
        {"location": "/etc/passwd"},
        {"location": "sub/../../secret"},
        {"location": ""},
        {"location": "missing.bin"},
        {"length": 4800},
        {"length": 40},
        {"offset": 1},
        {"offset": -8},
    ],
)
def test_external_data_is_confined_to_what_is_there(tmp_path, claim):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(48))
    with pytest.raises(InvalidModel) as caught:
        load(external_model(folder, **claim))
    assert caught.value.where == "w"


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_external_data_that_is_a_link_is_refused(tmp_path, link):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(48))
    link(tmp_path / "secret", folder / "w2.bin")
    with pytest.raises(InvalidModel, match="link"):
        load(external_model(folder, location="w2.bin"))


def test_one_external_range_named_a_hundred_times_is_refused(tmp_path):
    path = external_model(tmp_path)
    model = onnx.load(path, load_external_data=False)
    for index in range(100):
        copy = model.graph.initializer.add()
        copy.CopyFrom(model.graph.initializer[0])
        copy.name = f"w{index}"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match="claim"):
        load(path)


def archive_of(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return path
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("name", ["m.zip", "m.tar", "m.tar.gz"])
def test_an_archive_with_external_data(tmp_path, name):
    source = external_model(tmp_path)
    members = {"folder/m.onnx": source.read_bytes(), "folder/w.bin": (tmp_path / "w.bin").read_bytes()}
    packed = archive_of(tmp_path / name, members)
    workdir = tmp_path / "work"
    workdir.mkdir()
    (saved,) = save(load(packed, workdir=workdir), tmp_path / "out.onnx")
    feeds = {"x": random(2, 4)}
    assert_same(answers(source, feeds), answers(saved, feeds), rtol=0)


@pytest.mark.parametrize("name", ["m.zip", "m.tar"])
@pytest.mark.parametrize("member", ["../evil", "/evil", "a/../../evil", "a\\..\\evil"])
def test_an_archive_that_names_places_outside_is_refused(tmp_path, name, member):
    model = small_model(tmp_path / "m.onnx").read_bytes()
    packed = archive_of(tmp_path / name, {"m.onnx": model, member: b"x"})
    workdir = tmp_path / "a" / "b"
    workdir.mkdir(parents=True)
    with pytest.raises(InvalidModel, match="outside"):
        load(packed, workdir=workdir)
    assert not list(tmp_path.rglob("evil"))


def test_an_archive_with_a_link_is_refused(tmp_path):
    packed = tmp_path / "m.tar"
    with tarfile.open(packed, "w") as tar:
        tar.add(small_model(tmp_path / "m.onnx"), "m.onnx")
        info = tarfile.TarInfo("w.bin")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    with pytest.raises(InvalidModel, match="link"):
        load(packed, workdir=tmp_path)


def test_an_archive_bomb_is_refused_unopened(tmp_path):
    packed = tmp_path / "m.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m.onnx", bytes(300 * 2**20))
    with pytest.raises(InvalidModel, match="would open to"):
        load(packed, workdir=tmp_path)


def test_an_archive_without_a_model_says_so(tmp_path):
    with pytest.raises(InvalidModel, match="exactly one"):
        load(archive_of(tmp_path / "m.zip", {"readme.txt": b"hello"}), workdir=tmp_path)


FOREIGN = {
    "pickle": b"\x80\x04\x95\x00\x00",
    "tflite": b"\x1c\x00\x00\x00TFL3" + bytes(64),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(64),
    "safetensors": (2).to_bytes(8, "little") + b"{}" + bytes(8),
    "text": b'{"model": 1}',
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_with_a_hint(tmp_path, kind):
    path = tmp_path / "m.onnx"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(UnsupportedModel) as caught:
        load(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("members", "word"),
    [
        (["m/code/__torch__.py", "m/constants.pkl", "m/data.pkl"], "TorchScript"),
        (["m/archive_format", "m/models/model.json", "m/data/weights/weight_0"], "pt2"),
        (["m/data.pkl", "m/data/0"], "checkpoint"),
    ],
)
def test_pytorch_archives_are_refused_with_the_way_to_export(tmp_path, members, word):
    packed = archive_of(tmp_path / "m.zip", dict.fromkeys(members, b"x"))
    with pytest.raises(UnsupportedModel, match=word) as caught:
        load(packed, workdir=tmp_path)
    assert "torch.onnx.export" in (caught.value.hint or "")


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_invalid(tmp_path, cut):
    path = small_model(tmp_path / "m.onnx")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(InvalidModel):
        load(path)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_are_refused(tmp_path, seed):
    path = tmp_path / "m.onnx"
    path.write_bytes(np.random.default_rng(seed).bytes(50 * seed))
    with pytest.raises((InvalidModel, UnsupportedModel)):
        load(path)


def test_names_that_are_no_text_are_refused(tmp_path):
    path = small_model(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes().replace(b"relu1", b"\xff\xfe\xfd\xfc\xfb"))
    with pytest.raises(InvalidModel, match="UTF-8"):
        load(path)


@pytest.mark.parametrize("dims", [[2**62, 2**62], [-1, 4], [4, 4]])
def test_sizes_that_lie_are_refused(tmp_path, dims):
    model = onnx.parser.parse_model(MATMUL)
    model.graph.initializer.append(numpy_helper.from_array(random(4, 3), "w"))
    model.graph.initializer[0].dims[:] = dims
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel):
        load(path)


def test_an_unknown_operator_is_named(tmp_path):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "my.ops": 1]>
           g (float[N] x) => (float[N] y) {y = my.ops.Fancy(x)}"""
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(UnsupportedModel, match=r"my\.ops\.Fancy"):
        load(path)


def test_a_function_that_calls_itself_is_refused(tmp_path):
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "f": 1]> g (float[N] x) => (float[N] y) {y = f.loop(x)}
           <domain: "f", opset_import: ["" : 17, "f": 1]> loop (a) => (b) {b = f.loop(a)}"""
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match="without end"):
        load(path)


def test_functions_that_double_their_nodes_forty_times_are_refused(tmp_path):
    functions = "".join(
        f'<domain: "f", opset_import: ["" : 17, "f": 1]> d{i} (a) => (b)'
        f" {{t = f.d{i - 1}(a) b = f.d{i - 1}(t)}}"
        for i in range(1, 30)
    )
    first = '<domain: "f", opset_import: ["" : 17, "f": 1]> d0 (a) => (b) {b = Neg(a)}'
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "f": 1]> g (float[N] x) => (float[N] y) {y = f.d29(x)}'
        + first
        + functions
    )
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match="nodes"):
        load(path)


def test_functions_are_inlined_so_that_their_layers_show(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        """<ir_version: 8, opset_import: ["" : 17, "f": 1]> g (float[N,4] x) => (float[N,3] y)
             {h = f.linear(x, w) y = Relu(h)}
           <domain: "f", opset_import: ["" : 17]> linear (a, m) => (b) {b = MatMul(a, m)}""",
        w=random(4, 3),
    )
    model = load(path)
    assert [layer.node.op_type for layer in layers(model)] == ["MatMul"]
    assert summarise(model, size_bytes=1).functions == 1
    (saved,) = save(model, tmp_path / "out.onnx")
    feeds = {"x": random(2, 4)}
    assert_same(answers(path, feeds), answers(saved, feeds), rtol=0)


def test_sparse_initializers_become_dense(tmp_path):
    model = onnx.parser.parse_model(MATMUL)
    values = numpy_helper.from_array(np.asarray([1.5, -2], np.float32), "w")
    indices = numpy_helper.from_array(np.asarray([[0, 1], [3, 2]], np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4, 3]))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (saved,) = save(load(path), tmp_path / "out.onnx")
    x = random(2, 4)
    dense = np.zeros((4, 3), np.float32)
    dense[0, 1], dense[3, 2] = 1.5, -2
    np.testing.assert_allclose(answers(saved, {"x": x})["y"], x @ dense, rtol=1e-6)


def sparse_tensor(values: np.ndarray, indices: np.ndarray, shape: list[int], name: str = "w"):
    stored = (numpy_helper.from_array(values, name), numpy_helper.from_array(indices, "i"))
    return helper.make_sparse_tensor(*stored, shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, np.int8, np.int64])
@pytest.mark.parametrize("rank", [1, 2])
def test_sparse_constants_become_dense(tmp_path, dtype, rank):
    values = np.asarray([3, -2], dtype)
    indices = np.asarray([1, 11] if rank == 1 else [[0, 1], [3, 2]], np.int64)
    model = onnx.parser.parse_model(MATMUL.replace("MatMul(x, w)", "Identity(x)"))
    node = helper.make_node("Constant", [], ["c"], sparse_value=sparse_tensor(values, indices, [4, 3], "c"))
    cast = helper.make_node("Cast", ["c"], ["d"], to=onnx.TensorProto.FLOAT)
    product = helper.make_node("MatMul", ["x", "d"], ["y"])
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend([node, cast, product])
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    (saved,) = save(load(path), tmp_path / "out.onnx")
    dense = np.zeros((4, 3), np.float32)
    dense[0, 1], dense[3, 2] = 3, -2
    x = random(2, 4)
    np.testing.assert_allclose(answers(saved, {"x": x})["y"], x @ dense, rtol=1e-6)


@pytest.mark.parametrize(
    ("indices", "shape", "found"),
    [
        ([0, 12], [4, 3], "do not fit"),
        ([-1, 2], [4, 3], "do not fit"),
        ([[0, 0, 0], [0, 0, 0]], [4, 3], "do not fit"),
        ([[0, 0], [4, 0]], [4, 3], "outside its shape"),
        ([0, 1, 2], [4, 3], "do not fit"),
        ([0, 1], [1 << 20, 1 << 20], "would open to"),
    ],
)
def test_sparse_initializers_that_lie_are_refused(tmp_path, indices, shape, found):
    model = onnx.parser.parse_model(MATMUL)
    sparse = sparse_tensor(np.asarray([1, 2], np.float32), np.asarray(indices, np.int64), shape)
    model.graph.sparse_initializer.append(sparse)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match=found):
        load(path)


def test_many_small_sparse_tensors_may_not_open_to_much_together(tmp_path):
    """Each alone stays under what one tensor may grow to."""
    model = onnx.parser.parse_model(MATMUL)
    for number in range(8):
        one = np.asarray([1.0], np.float32), np.asarray([number], np.int64)
        model.graph.sparse_initializer.append(sparse_tensor(*one, [1 << 22], f"w{number or ''}"))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match="would open to"):
        load(path)


@pytest.mark.parametrize("version", [3, 8])
def test_weights_listed_as_inputs_are_constants_and_defaults_stay(tmp_path, version):
    """onnxruntime lets a caller override the number `s` from IR version 4 on, so that must still work."""
    model = onnx.parser.parse_model(
        f'<ir_version: {version}, opset_import: ["" : 8]>'
        "g (float[N,4] x, float[4,3] w, float s) => (float[N,3] y) {h = MatMul(x, w) y = Mul(h, s)}"
    )
    for name, array in (("w", random(4, 3)), ("s", np.asarray(2, np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    loaded = load(path)
    assert [tensor.name for tensor in interface(loaded)[0]] == ["x"]
    assert [layer.weights[0].name for layer in layers(loaded)] == ["w"]
    (saved,) = save(loaded, tmp_path / "out.onnx")
    feeds = {"x": random(2, 4)}
    if version > 3:
        feeds["s"] = np.asarray(-1, np.float32)
    assert_same(answers(path, feeds), answers(saved, feeds), rtol=0)


def test_names_are_unique_and_the_same_every_time(tmp_path):
    path = small_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    for node, name in zip(model.graph.node, ["", "same", "same", "", "same"], strict=False):
        node.name = name
    onnx.save(model, path)
    first = [layer.name for layer in layers(load(path))]
    assert len(set(first)) == len(first) == 4
    (saved,) = save(load(path), tmp_path / "out.onnx")
    assert (
        first == [layer.name for layer in layers(load(path))] == [layer.name for layer in layers(load(saved))]
    )


def test_saving_twice_gives_the_same_bytes_and_the_same_answers(tmp_path):
    path = small_model(tmp_path / "m.onnx")
    (first,) = save(load(path), tmp_path / "a.onnx")
    (second,) = save(load(path), tmp_path / "b.onnx")
    assert first.read_bytes() == second.read_bytes()
    onnx.checker.check_model(onnx.load(first), full_check=True)
    assert_same(answers(path, {"image": images()}), answers(first, {"image": images()}), rtol=0)
