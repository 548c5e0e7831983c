"""Opens what was uploaded, refuses what is hostile or foreign, and brings the rest into one form."""

import tempfile
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from compression.errors import InvalidModel
from compression.graph.archives import is_archive, unpack
from compression.graph.detect import refuse_foreign
from compression.graph.external import check_tensors
from compression.graph.limits import MAX_PROTOBUF_BYTES
from compression.graph.normal import normalise
from compression.graph.soundness import check_sound
from compression.graph.sparse import densify
from compression.graph.text import check_text


def load(path: Path, *, workdir: Path | None = None) -> ir.Model:
    """Opens an ONNX file, or a zip or tar archive with one and its external data.

    In the result every node has a name of its own, the same at every loading; weights in Constant nodes are
    initializers; sparse initializers are dense; functions that hold weights are inlined. External data
    stays in its files, memory-mapped when it is read. `model.meta["path"]` is the ONNX file itself,
    `model.meta["warnings"]` tells what was changed that a user should know.

    Args:
        path: the file.
        workdir: where an archive is unpacked; must live as long as the model. A temporary folder otherwise.

    Raises:
        InvalidModel: it is damaged, inconsistent or hostile.
        UnsupportedModel: it is sound, but of a kind that is not taken.
    """
    if not path.is_file():
        raise InvalidModel(f"there is no file {path.name}")
    refuse_foreign(path)
    if is_archive(path):
        path = unpack(path, Path(tempfile.mkdtemp(prefix="unpacked-", dir=workdir)))
        refuse_foreign(path)
    proto = _parse(path)
    check_text(proto)
    check_sound(proto)
    files = check_tensors(proto, path.parent)
    warnings = ["sparse initializers were made dense"] if densify(proto) else []
    model = _deserialize(proto, path.parent)
    warnings += normalise(model)
    model.meta["path"] = str(path)
    model.meta["external_files"] = tuple(str(file) for file in files)
    model.meta["warnings"] = tuple(warnings)
    return model


def external_files(model: ir.Model) -> tuple[Path, ...]:
    """The external data files that came with a loaded model."""
    return tuple(Path(file) for file in model.meta.get("external_files", ()))


def _parse(path: Path) -> onnx.ModelProto:
    if path.stat().st_size > MAX_PROTOBUF_BYTES:
        raise InvalidModel(
            "the file is larger than 2 GB, which protobuf rules out",
            hint="save it with external data and upload a zip of the .onnx file and its data files",
        )
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise InvalidModel("the bytes are no ONNX model, or the file is cut short") from error
    return proto


def _deserialize(proto: onnx.ModelProto, folder: Path) -> ir.Model:
    try:
        model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise InvalidModel(f"the graph is broken: {_innermost(error)}") from error
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        ir.external_data.set_base_dir(graph, folder)
    return model


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0][:500] if str(error) else type(error).__name__
