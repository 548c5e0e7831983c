"""torch.export programs (.pt2) become ONNX.

Reading one can run code that lies in it: only a confined process may call `convert_program`.
"""

import logging
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from compression.errors import InvalidModel, UnsupportedModel
from compression.graph.limits import SINGLE_FILE_BYTES

if TYPE_CHECKING:
    import torch

ASK_TORCH = (
    'try torch.onnx.export(torch.export.load("model.pt2"), dynamo=True, report=True) where the program was made, '
    "and upload the ONNX file"
)
_REASON_LENGTH = 500


def is_program(names: list[str]) -> bool:
    """Whether a zip file with these members is a torch.export program."""
    paths = [PurePosixPath(name) for name in names]
    if any(path.name == "serialized_exported_program.json" for path in paths):
        return True
    described = any(path.suffix == ".json" and path.parent.name == "models" for path in paths)
    return described and any(path.name == "archive_format" for path in paths)


def convert_program(path: Path, target: Path) -> None:
    """Writes a torch.export program as ONNX.

    Inputs keep their names, and outputs theirs where the program returns a dict; dynamic axes stay so. `target`
    is an ONNX file, or where that would be larger than 1.9 GB a zip of one with its external data: `load` opens
    either.

    Raises:
        InvalidModel: torch cannot read the file.
        UnsupportedModel: torch can read it, and not write it as ONNX.
    """
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = _load(path)
    try:
        exported = torch.onnx.export(program, dynamo=True, verbose=False, output_names=_output_names(program))
    except Exception as error:
        raise UnsupportedModel(
            f"torch cannot write this program as ONNX: {_reason(error)}", hint=ASK_TORCH
        ) from error
    if exported is None:
        raise UnsupportedModel("torch writes nothing for this program", hint=ASK_TORCH)
    _write(exported, target)


def _load(path: Path) -> "torch.export.ExportedProgram":
    import torch

    heard = _Heard()
    log = logging.getLogger("torch.export")
    log.addHandler(heard)
    try:
        with path.open("rb") as file:
            return torch.export.load(file)
    except Exception as error:
        raise InvalidModel(
            f"torch cannot read this program: {_reason(heard.error or error)}",
            hint=f"save it with torch.export.save of torch {torch.__version__.partition('+')[0]} or older, "
            "without custom operators",
        ) from error
    finally:
        log.removeHandler(heard)


class _Heard(logging.Handler):
    """Torch's loader logs some errors and then raises another, which says nothing."""

    error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None:
            self.error = record.exc_info[1]


def _output_names(program: "torch.export.ExportedProgram") -> list[str] | None:
    """The keys of a dict of tensors; what torch calls a value inside the program is no name for its users."""
    spec = program.call_spec.out_spec
    keys = spec.context if spec is not None and spec.type is dict else []
    plain = all(isinstance(key, str) for key in keys) and spec is not None and spec.num_leaves == len(keys)
    return list(keys) if keys and plain else None


def _write(exported: "torch.onnx.ONNXProgram", target: Path) -> None:
    model = exported.model
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # Stack traces with paths of the machine that made it.
    stored = (value.const_value for value in model.graph.initializers.values())
    size = sum(tensor.nbytes for tensor in stored if tensor is not None)
    if size <= SINGLE_FILE_BYTES:
        exported.save(target)
        return
    folder = target.with_name(f"{target.name}.parts")
    folder.mkdir()
    exported.save(folder / "model.onnx", external_data=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for part in sorted(folder.iterdir()):
            archive.write(part, part.name)
            part.unlink()


def _reason(error: BaseException) -> str:
    """The first line of what was wrong at first: torch wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:_REASON_LENGTH]
