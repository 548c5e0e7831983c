"""Tells by content what kind of file this is, so that a refusal can say how to export to ONNX."""

import zipfile
from pathlib import Path

from compression.errors import InvalidModel, NeedsConversion, UnsupportedModel
from compression.graph.programs import is_program

EXPORT = "export it to ONNX first"
TORCH = 'export it with torch.onnx.export(model, example_inputs, "model.onnx") and upload that file'
CONVERT = 'write it as ONNX first: torch.onnx.export(torch.export.load("model.pt2"), dynamo=True)'
KINDS: tuple[tuple[int, bytes, str, str], ...] = (
    (
        4,
        b"TFL3",
        "a TensorFlow Lite model",
        "export the original model with tf2onnx: python -m tf2onnx.convert",
    ),
    (
        0,
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file, as Keras writes it",
        'use model.export("model.onnx", format="onnx")',
    ),
    (0, b"\x93NUMPY", "a numpy array", "upload it as a dataset"),
    (0, b"PAR1", "a Parquet file", "upload it as a dataset"),
    (0, b"GGUF", "a GGUF model", "export the original model to ONNX, with optimum for instance"),
    (4, b"ORTM", "an onnxruntime model (.ort)", "upload the .onnx file it was made from"),
    (0, b"\x7fELF", "a program", EXPORT),
    (0, b"MZ", "a program", EXPORT),
    (0, b"%PDF", "a PDF document", EXPORT),
    (0, b"\x89PNG", "an image", EXPORT),
    (0, b"\xff\xd8\xff", "an image", EXPORT),
    (0, b"Rar!", "a RAR archive", "pack the model as zip or tar"),
    (0, b"7z\xbc\xaf", "a 7z archive", "pack the model as zip or tar"),
)


def refuse_foreign(path: Path) -> None:
    """Raises for files that are recognisably no ONNX.

    Raises:
        InvalidModel: the file is empty.
        UnsupportedModel: it is of another known kind; the hint says how to export.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise InvalidModel("the file is empty")
    for offset, magic, kind, hint in KINDS:
        if start[offset : offset + len(magic)] == magic:
            raise UnsupportedModel(f"this is {kind}, not an ONNX model", hint=hint)
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05":
        raise UnsupportedModel("this is a Python pickle, which is never opened: it can run code", hint=TORCH)
    if _is_safetensors(start, path.stat().st_size):
        raise UnsupportedModel("safetensors hold weights without a graph", hint=TORCH)
    if start.lstrip()[:1] in (b"{", b"<", b"#"):
        raise UnsupportedModel("this is a text file, not an ONNX model in protobuf form", hint=EXPORT)


def refuse_foreign_zip(archive: zipfile.ZipFile) -> None:
    """Raises for zip files that PyTorch and Keras write.

    Raises:
        NeedsConversion: it is one of `torch.export`.
        UnsupportedModel: it is another; the hint says how to export.
    """
    names = [name.rpartition("/")[2] for name in archive.namelist()]
    if is_program(archive.namelist()):
        raise NeedsConversion("this is a torch.export program (.pt2), not an ONNX model", hint=CONVERT)
    if "archive_format" in names:
        raise UnsupportedModel("this is a compiled torch package, which holds machine code", hint=TORCH)
    if any(name == "constants.pkl" for name in names):
        raise UnsupportedModel("this is a TorchScript archive, which can run code", hint=TORCH)
    if any(name.endswith(".pkl") for name in names):
        raise UnsupportedModel("this is a PyTorch checkpoint, a pickle that can run code", hint=TORCH)
    if "config.json" in names and any(name.endswith((".weights.h5", ".h5")) for name in names):
        raise UnsupportedModel("this is a Keras model", hint='use model.export("model.onnx", format="onnx")')
    if any(name.endswith(".npy") for name in names) and not any(name.endswith(".onnx") for name in names):
        raise UnsupportedModel("this archive holds numpy arrays", hint="upload it as a dataset")


def _is_safetensors(start: bytes, size: int) -> bool:
    length = int.from_bytes(start[:8], "little")
    return len(start) > 9 and start[8:9] == b"{" and 2 <= length <= size - 8
