"""The ONNX project's own backend tests of single operators, put to the trainable view.

In scope is every case that has a float tensor of 16, 32 or 64 bits among its inputs or outputs, and every case of an
operator that computes with indices. Out of scope are strings, floats of 8 bits and less, integers of 4 bits and less,
complex numbers, random numbers, images as files, and the domains ai.onnx.ml and ai.onnx.preview.training.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import torch
from onnx import TensorProto

from compression.errors import CompressionError
from compression.graph.normal import normalise
from compression.graph.trainable import TrainableGraph
from compression.graph.trainable.elements import computed_array, computed_tensor

INDEX_OPERATORS = frozenset(
    {
        *(
            "ArgMax",
            "ArgMin",
            "CenterCropPad",
            "Compress",
            "Concat",
            "ConstantOfShape",
            "CumSum",
            "DepthToSpace",
        ),
        *(
            "Expand",
            "EyeLike",
            "Flatten",
            "Gather",
            "GatherElements",
            "GatherND",
            "Identity",
            "NonZero",
            "OneHot",
        ),
        *(
            "Pad",
            "Range",
            "Reshape",
            "ReverseSequence",
            "Scatter",
            "ScatterElements",
            "ScatterND",
            "Shape",
            "Size",
        ),
        *(
            "Slice",
            "SpaceToDepth",
            "Split",
            "Squeeze",
            "Tile",
            "TopK",
            "Transpose",
            "Trilu",
            "Unique",
            "Unsqueeze",
        ),
        *("Where", "TensorScatter", "If", "Loop", "Scan"),
    }
)
OUTSIDE = frozenset(
    {
        *(
            "Bernoulli",
            "Multinomial",
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
        ),
        *(
            "ImageDecoder",
            "StringConcat",
            "StringNormalizer",
            "StringSplit",
            "RegexFullMatch",
            "TfIdfVectorizer",
        ),
    }
)
FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
PLAIN = FLOATS | {
    *(TensorProto.BOOL, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
}
RTOL = {"float16": 2e-3, "bfloat16": 2e-2}
"""Half precision is computed in float32, so results differ from rounded ones by about one unit in the last place."""


class Outcome(StrEnum):
    PASSED = "passed"
    WRONG = "wrong"
    REFUSED = "refused"
    CRASHED = "crashed"


@dataclass(frozen=True, kw_only=True)
class Result:
    name: str
    operator: str
    scope: Literal["in", "integers", "out"]
    outcome: Outcome
    detail: str = ""


@cache
def cases() -> tuple[Any, ...]:
    """All node cases that the installed onnx makes, in its order."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(load_model_tests(kind="node"))


def scope(case: Any) -> Literal["in", "integers", "out"]:
    """Whether a case counts; `integers` are cases that nothing rules out, but have no float and no indices."""
    types = set(_element_types(case.model.graph))
    operators = {node.op_type for node in case.model.graph.node}
    if {node.domain for node in case.model.graph.node} & {"ai.onnx.ml", "ai.onnx.preview.training"}:
        return "out"
    if operators & OUTSIDE or not types <= PLAIN or case.name.startswith("test_training_dropout"):
        return "out"
    return "in" if types & FLOATS or operators & INDEX_OPERATORS else "integers"


def run(case: Any) -> Result:
    """Puts one case to the view; whatever is no refusal with a reason counts as a crash."""
    outcome, detail = Outcome.PASSED, ""
    try:
        detail = _difference(case)
        outcome = Outcome.WRONG if detail else Outcome.PASSED
    except CompressionError as error:
        outcome, detail = Outcome.REFUSED, error.message
    except Exception as error:  # noqa: BLE001
        outcome, detail = Outcome.CRASHED, f"{type(error).__name__}: {error}"
    return Result(
        name=case.name, operator=operator(case), scope=scope(case), outcome=outcome, detail=detail[:200]
    )


def operator(case: Any) -> str:
    """What a case is about: its last node, as the first ones make constants."""
    return str(case.model.graph.node[-1].op_type)


def _difference(case: Any) -> str:
    """What is wrong with the view's answers; empty where nothing is."""
    model = ir.from_proto(case.model)
    normalise(model)
    view = TrainableGraph(model).eval()
    names = [item.name for item in case.model.graph.input]
    for inputs, outputs in case.data_sets:
        feeds = {name: _fed(value) for name, value in zip(names, inputs, strict=False)}
        with torch.no_grad():
            answers = view(feeds)
        for item, expected in zip(case.model.graph.output, outputs, strict=True):
            problem = _compare(expected, answers[item.name], case)
            if problem:
                return f"{item.name}: {problem}"
    return ""


def _fed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_fed(item) for item in value]
    return None if value is None else computed_tensor(_array(value))


def _array(value: Any) -> np.ndarray:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _compare(expected: Any, found: Any, case: Any) -> str:
    if isinstance(expected, (list, tuple)):
        if len(expected) != len(found):
            return f"{len(found)} entries instead of {len(expected)}"
        return next(filter(None, (_compare(*pair, case) for pair in zip(expected, found, strict=True))), "")
    if expected is None or found is None:
        return "" if expected is None and found is None else "only one is there"
    wanted = _array(expected)
    array = found.numpy()
    if array.shape != wanted.shape:
        return f"shape {array.shape} instead of {wanted.shape}"
    if array.dtype != computed_array(wanted).dtype:
        return f"type {array.dtype} instead of {wanted.dtype}"
    close = np.isclose(array, computed_array(wanted), equal_nan=True, **_tolerances(wanted, case))
    return "" if close.all() else f"{int((~close).sum())} of {close.size} entries differ"


def _tolerances(wanted: np.ndarray, case: Any) -> dict[str, float]:
    """The case's own; an entry that is rounding noise beside the largest one may be any such noise."""
    if wanted.dtype.kind not in "fV":
        return {"rtol": 0, "atol": 0}
    largest = float(np.abs(wanted.astype(np.float64)).max(initial=0, where=np.isfinite(wanted.astype(float))))
    noise = float(np.finfo(np.float32).eps) * largest
    return {"rtol": max(case.rtol, RTOL.get(wanted.dtype.name, 0)), "atol": max(case.atol, noise)}


def _element_types(graph: onnx.GraphProto) -> Iterator[int]:
    for item in (*graph.input, *graph.output):
        kind = item.type
        while not kind.HasField("tensor_type"):
            inner = "sequence_type" if kind.HasField("sequence_type") else "optional_type"
            kind = getattr(kind, inner).elem_type
        yield kind.tensor_type.elem_type
