"""Whole files: every element type, external data, tiny and odd ones, and the command line."""

import hashlib
import io
import sys
from importlib.resources import files
from pathlib import Path
from subprocess import run
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.helper
import pytest
from onnx import TensorProto, numpy_helper

from compression.coding import Unpacker, inspect, pack_file, unpack_file, unpack_stream
from compression.coding.__main__ import main
from compression.coding.frames import DICTIONARY
from compression.errors import InvalidModel, PackedError
from tests.compression.models import small_model

PLAIN = [np.float32, np.float64, np.float16, np.int8, np.uint8, np.int16, np.uint16]
PLAIN += [np.int32, np.uint32, np.int64, np.uint64, np.bool_, np.complex64, np.complex128]
FLOATS_OF_MACHINES = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"]


def same_again(source: Path, folder: Path) -> Path:
    packed, back = folder / "packed", folder / "back.onnx"
    report = pack_file(source, packed)
    assert unpack_file(packed, back) == (back,)
    assert back.read_bytes() == source.read_bytes()
    assert report.stored_bytes == packed.stat().st_size
    assert b"".join(unpack_stream(io.BytesIO(packed.read_bytes()))) == source.read_bytes()
    told = inspect(packed)
    assert told.stored_bytes == report.stored_bytes
    assert [(t.name, t.shape, t.size_bytes, t.stored_bytes) for t in told.tensors] == [
        (t.name, t.shape, t.size_bytes, t.stored_bytes) for t in report.tensors
    ]
    return packed


def file_of(folder: Path, *tensors: TensorProto) -> Path:
    graph = onnx.helper.make_graph([], "g", [], [], list(tensors))
    path = folder / "model.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    return path


@pytest.mark.parametrize("kind", [*PLAIN, *FLOATS_OF_MACHINES], ids=str)
def test_every_element_type(tmp_path: Path, kind: Any) -> None:
    kind = getattr(ml_dtypes, kind) if isinstance(kind, str) else kind
    rng = np.random.default_rng(0)
    array = rng.normal(0, 3, (32, 65)).astype(kind)
    sparse = np.where(rng.random((32, 65)) < 0.05, array, np.zeros((), kind)).astype(kind)
    tensors = [numpy_helper.from_array(array, "dense"), numpy_helper.from_array(sparse, "sparse")]
    tensors += [numpy_helper.from_array(array[0, 0].reshape(()), "scalar")]
    tensors += [numpy_helper.from_array(array[:0], "empty")]
    packed = same_again(file_of(tmp_path, *tensors), tmp_path)
    assert [tensor.name for tensor in inspect(packed).tensors] == ["dense", "sparse"]


def test_typed_fields_strings_and_attributes(tmp_path: Path) -> None:
    words = onnx.helper.make_tensor("words", TensorProto.STRING, [40], [b"word"] * 40)
    typed = onnx.helper.make_tensor("typed", TensorProto.FLOAT, [50], np.arange(50.0))
    varints = onnx.helper.make_tensor("varints", TensorProto.INT64, [500], list(range(500)))
    value = numpy_helper.from_array(np.arange(100, dtype=np.float32), "inside")
    node = onnx.helper.make_node("Constant", [], ["c"], value=value)
    body = onnx.helper.make_graph([node], "body", [], [])
    branch = onnx.helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
    graph = onnx.helper.make_graph([branch], "g", [], [], [words, typed, varints])
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
    told = inspect(same_again(path, tmp_path))
    assert sorted(tensor.name for tensor in told.tensors) == ["inside", "inside", "typed"]


@pytest.mark.parametrize("content", [b"", b"\x00", b"not a model at all", bytes(range(256)) * 9000], ids=len)
def test_what_is_no_model_is_squeezed_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert not inspect(same_again(path, tmp_path)).tensors


def test_tensors_of_many_chunks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    zeros = np.zeros((1500, 1000), np.float32)
    zeros[rng.integers(0, 1500, 2000), rng.integers(0, 1000, 2000)] = 1.5
    long = rng.integers(-3, 4, (1 << 20) + 7).astype(np.int8)
    path = file_of(tmp_path, numpy_helper.from_array(zeros, "zeros"), numpy_helper.from_array(long, "long"))
    report = inspect(same_again(path, tmp_path))
    assert report.tensors[0].stored_bytes < 5500
    assert report.tensors[1].stored_bytes < (1 << 20) * 0.36


def test_a_small_network_costs_little_more_than_its_weights(tmp_path: Path) -> None:
    path = small_model(tmp_path / "model")
    report = pack_file(path, tmp_path / "packed")
    assert report.structure_bytes < 420
    pack_file(path, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "packed").read_bytes()


def external(folder: Path) -> Path:
    model = onnx.load(small_model(folder / "plain"))
    for tensor in model.graph.initializer:
        tensor.name = tensor.name
    path = folder / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=64)
    return path


def test_external_data_goes_along(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = external(tmp_path / "in")
    pack_file(source, tmp_path / "packed")
    paths = unpack_file(tmp_path / "packed", tmp_path / "out" / "net.onnx")
    assert [path.name for path in paths] == ["net.onnx", "weights.bin"]
    assert paths[0].read_bytes() == source.read_bytes()
    assert paths[1].read_bytes() == (tmp_path / "in" / "weights.bin").read_bytes()
    assert "conv2.w" in [tensor.name for tensor in inspect(tmp_path / "packed").tensors]
    with pytest.raises(PackedError, match="2 files"):
        unpack_stream(io.BytesIO((tmp_path / "packed").read_bytes()))
    (tmp_path / "in" / "weights.bin").unlink()
    with pytest.raises(InvalidModel, match=r"weights\.bin"):
        pack_file(source, tmp_path / "packed")


def test_a_limit_is_kept_and_damage_leaves_nothing(tmp_path: Path) -> None:
    path = small_model(tmp_path / "model")
    pack_file(path, tmp_path / "packed")
    with pytest.raises(PackedError, match="are allowed"):
        unpack_file(tmp_path / "packed", tmp_path / "back", max_output_bytes=100)
    content = bytearray((tmp_path / "packed").read_bytes())
    content[-20] ^= 1
    (tmp_path / "packed").write_bytes(content)
    (tmp_path / "back").write_bytes(b"before")
    with pytest.raises(PackedError):
        unpack_file(tmp_path / "packed", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"before"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["back", "model", "packed"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small_model(tmp_path / "model.onnx")
    packed, back = str(tmp_path / "model.packed"), tmp_path / "back.onnx"
    assert main(["pack", str(path), packed]) == 0
    assert main(["unpack", packed, str(back)]) == 0
    assert back.read_bytes() == path.read_bytes()
    assert main(["inspect", packed]) == 0
    assert "conv2.w" in capsys.readouterr().out
    assert main(["unpack", str(path), str(back)]) == 1
    assert "does not begin as a packed file does" in capsys.readouterr().err


def test_the_dictionary_is_the_documented_one() -> None:
    content = files("compression.coding").joinpath(DICTIONARY).read_bytes()
    document = Path(__file__).parents[3] / "docs" / "packed-format.md"
    assert hashlib.sha256(content).hexdigest() in document.read_text(encoding="utf-8")
    assert b"site-packages" not in content.replace(b"python3.11/site-packages/torch", b"")


def test_the_decoder_needs_no_onnx(tmp_path: Path) -> None:
    path = small_model(tmp_path / "model.onnx")
    pack_file(path, tmp_path / "packed")
    code = (
        "import sys\n"
        "from compression.coding.__main__ import main\n"
        f"assert main(['unpack', {str(tmp_path / 'packed')!r}, {str(tmp_path / 'back')!r}]) == 0\n"
        "print({'onnx', 'onnx_ir', 'onnxruntime', 'torch'} & set(sys.modules))\n"
    )
    out = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "set()"
    assert Unpacker(io.BytesIO((tmp_path / "packed").read_bytes())).files[0].size == path.stat().st_size
