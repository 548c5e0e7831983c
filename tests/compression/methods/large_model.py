"""Models too large to hold: written piece by piece, and quantize_weights on them in a process that is watched.

`python -m tests.compression.methods.large_model MODEL RESULT PARAMETERS [RUN_UP_TO]` prints as JSON what became of it;
models beyond RUN_UP_TO bytes are not run to compare outputs.
"""

import json
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def write_model(folder: Path, *, layers: int, width: int) -> Path:
    """Products one after another, each with a float32 weight (width, width) in one external file."""
    piece = np.random.default_rng(0).normal(size=(width, width)).astype(np.float32) / np.float32(width**0.5)
    nodes, stored = [], []
    with (folder / "weights.bin").open("wb") as file:
        for number in range(layers):
            file.write(np.roll(piece, number, axis=0).tobytes())
            stored.append(_external(f"w{number}", piece, number * piece.nbytes))
            nodes.append(
                helper.make_node(
                    "MatMul", [f"x{number}", f"w{number}"], [f"x{number + 1}"], name=f"layer{number}"
                )
            )
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x0", f"x{layers}")
    ]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def _external(name: str, like: np.ndarray, offset: int) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=TensorProto.FLOAT, dims=like.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", offset), ("length", like.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def main(model: str, result: str, parameters: str, run_up_to: str = "") -> None:
    from compression.graph import load, save
    from compression.method import StepContext
    from compression.methods.quantize_weights import QuantizeWeights
    from compression.quantization import check

    if run_up_to:
        check.MAX_BYTES = int(run_up_to)
    step = QuantizeWeights.model_validate(json.loads(parameters))
    with tempfile.TemporaryDirectory(dir=Path(result).parent) as work:
        context = StepContext(
            workdir=Path(work), data={}, device="cpu", threads=1, seed=0, report=lambda *_: None
        )
        at_start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        outcome = step.apply(load(Path(model)), context)
        files = save(outcome.model, Path(result))
    print(
        json.dumps(
            {
                "changed": sum(layer.changed for layer in outcome.layers),
                "note": outcome.layers[0].note,
                "at_start": at_start,
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "size": sum(file.stat().st_size for file in files),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
