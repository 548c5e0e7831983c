"""Whether a dataset's arrays fit a model's inputs: told from the two summaries, before anything is queued."""

from collections.abc import Mapping, Sequence

from compression.data.dtypes import castable
from compression.method import Problem
from compression.summary import ArraySummary, DatasetSummary, Dim, TensorSummary

LABELS = "labels"
CHANNELS = (1, 3, 4)
"""Grey, colour, colour with transparency."""


def match_arrays(inputs: Sequence[TensorSummary], summary: DatasetSummary) -> Mapping[str, str]:
    """Which array feeds which input, by input name; inputs without an array are left out.

    Names decide. Where the model has one input and the dataset one array beside the labels, those two belong
    together whatever they are called.
    """
    named = {tensor.name: tensor.name for tensor in inputs if summary.array(tensor.name)}
    others = [array.name for array in summary.arrays if array.name != LABELS]
    if not named and len(inputs) == 1 and len(others) == 1:
        return {inputs[0].name: others[0]}
    return named


def is_whole(array: ArraySummary, tensor: TensorSummary) -> bool:
    """Whether each sample is a whole input without a batch axis: the array has one axis more."""
    return tensor.shape is not None and len(array.shape) == len(tensor.shape) + 1


def fit_problems(inputs: Sequence[TensorSummary], summary: DatasetSummary) -> tuple[Problem, ...]:
    """Why the arrays cannot be fed to the inputs; empty when they can."""
    matched = match_arrays(inputs, summary)
    problems = [_missing(tensor, inputs, summary) for tensor in inputs if tensor.name not in matched]
    for tensor in inputs:
        array = summary.array(matched.get(tensor.name, ""))
        if array is not None:
            problems += _pair_problems(array, tensor, summary.format == "images")
    if not problems:
        problems += _batch_problems(inputs, summary, matched)
    return tuple(problems)


def fixed_batch(inputs: Sequence[TensorSummary], arrays: Mapping[str, ArraySummary]) -> frozenset[int]:
    """The batch sizes that the model's inputs insist on; 1 for an input that takes one whole sample."""
    sizes: set[int] = set()
    for tensor in inputs:
        if is_whole(arrays[tensor.name], tensor):
            sizes.add(1)
        elif tensor.shape and isinstance(tensor.shape[0], int):
            sizes.add(tensor.shape[0])
    return frozenset(sizes)


def _missing(tensor: TensorSummary, inputs: Sequence[TensorSummary], summary: DatasetSummary) -> Problem:
    found = ", ".join(array.name for array in summary.arrays)
    return _problem(
        f"no array for the model's input {tensor.name!r}; the dataset holds {found}",
        where=tensor.name,
        hint=f"name the arrays after the inputs: {', '.join(item.name for item in inputs)}",
    )


def _pair_problems(array: ArraySummary, tensor: TensorSummary, images: bool) -> list[Problem]:
    if images:
        return _image_problems(tensor)
    problems = []
    if not castable(array.dtype, tensor.dtype):
        problems.append(
            _problem(
                f"{array.name!r} is {array.dtype}, the input {tensor.name!r} takes {tensor.dtype}",
                where=array.name,
                hint=f"convert the array to {tensor.dtype} before uploading it",
            )
        )
    return problems + _shape_problems(array, tensor)


def _shape_problems(array: ArraySummary, tensor: TensorSummary) -> list[Problem]:
    if tensor.shape is None:
        return []
    wanted = tensor.shape if is_whole(array, tensor) else tensor.shape[1:]
    if len(array.shape) != len(wanted) + 1:
        return [
            _problem(
                f"{array.name!r} has {len(array.shape)} axes {_text(array.shape)}, "
                f"the input {tensor.name!r} has {len(tensor.shape)} {_text(tensor.shape)}",
                where=array.name,
                hint=f"shape it as {_text(('samples', *tensor.shape[1:]))}",
            )
        ]
    clashes = [
        f"axis {axis} is {has}, the model takes {wants}"
        for axis, (has, wants) in enumerate(zip(array.shape[1:], wanted, strict=True), start=1)
        if isinstance(wants, int) and has != wants
    ]
    if not clashes:
        return []
    return [
        _problem(
            f"{array.name!r} {_text(array.shape)} does not fit the input {tensor.name!r} "
            f"{_text(tensor.shape)}: {'; '.join(clashes)}",
            where=array.name,
            hint=f"shape it as {_text(('samples', *wanted))}{_transpose_hint(array.shape[1:], wanted)}",
        )
    ]


def _transpose_hint(has: tuple[int, ...], wanted: Sequence[object]) -> str:
    if len(has) == 3 and (has[2], has[0], has[1]) == tuple(wanted):
        return "; numpy.transpose(array, (0, 3, 1, 2)) does it"
    return ""


def _image_problems(tensor: TensorSummary) -> list[Problem]:
    if castable("uint8", tensor.dtype) and (tensor.shape is None or channel_axis(tensor.shape) is not None):
        return []
    return [
        _problem(
            f"the input {tensor.name!r} {_text(tensor.shape)} of {tensor.dtype} does not take images",
            where=tensor.name,
            hint="an image input is [batch, channels, height, width] or [batch, height, width, channels] "
            "with 1, 3 or 4 channels; upload other data as .npz",
        )
    ]


def channel_axis(shape: Sequence[Dim]) -> int | None:
    """Which axis of an image input counts channels: 1 (as most exporters write it), 3, or None."""
    if len(shape) != 4:
        return None
    if shape[1] in CHANNELS:
        return 1
    if shape[3] in CHANNELS:
        return 3
    return None if isinstance(shape[1], int) and isinstance(shape[3], int) else 1


def _batch_problems(
    inputs: Sequence[TensorSummary], summary: DatasetSummary, matched: Mapping[str, str]
) -> list[Problem]:
    arrays = {array.name: array for array in summary.arrays}
    sizes = fixed_batch(inputs, {name: arrays[array] for name, array in matched.items()})
    if len(sizes) > 1:
        return [
            _problem(
                f"the model's inputs insist on different batch sizes ({', '.join(map(str, sorted(sizes)))})",
                hint="give the arrays of inputs without a batch axis one more axis: "
                "[samples, ...the input's whole shape]",
            )
        ]
    ragged = [array.name for array in summary.arrays if array.ragged and array.name in matched.values()]
    if sizes and max(sizes) > 1 and ragged and summary.format != "images":
        return [
            _problem(
                f"the samples of {ragged[0]!r} differ in shape and the model takes {max(sizes)} at a time",
                where=ragged[0],
                hint="pad the samples to one shape",
            )
        ]
    return []


def _problem(message: str, *, where: str | None = None, hint: str | None = None) -> Problem:
    return Problem(code="data_mismatch", message=message, where=where, hint=hint)


def _text(shape: Sequence[object] | None) -> str:
    if shape is None:
        return "of unknown shape"
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
