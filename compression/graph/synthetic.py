"""Makes up plausible inputs from what a model declares, for models that come without data."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from compression.errors import CompressionError, DataMissing
from compression.summary import Dim, TensorSummary

Feeds = dict[str, np.ndarray]

AXIS_SIZES = (8, 1, 16, 32, 64, 224, 256, 640, 48, 128, 320, 512, 1024, 4096, 16000)
"""Sizes that free axes other than the batch may want, tried in this order."""
IMAGE_SIZES = (64, 224, 256, 640, 32, 48, 320, 128, 512, 16, 8)
"""The same for inputs that look like images: a network shrinks them many times."""
INTEGER_LIMITS = (2, 1, 16)
"""Integers are drawn below these: indices must stay small."""
SAMPLE_RATES = frozenset({"sr", "sample_rate", "sampling_rate", "samplerate"})
MAX_ELEMENTS = 2**26
MAX_TRIES = 40


def synthesise(
    inputs: Sequence[TensorSummary], samples: int, seed: int, model: ir.Model | None
) -> Iterator[Feeds]:
    """Single-sample inputs with free axes filled in, the same for the same seed.

    Floats are normal, integers small and not negative, masks true, lengths as long as the data.

    Args:
        inputs: what the model declares.
        samples: how many to make.
        seed: of the random numbers.
        model: tried out, to find sizes that it runs with; without it the first guess counts.

    Raises:
        DataMissing: an input is of a kind that cannot be made up, or the model ran with no guess.
    """
    for tensor in inputs:
        if tensor.shape is None and model is None:
            raise DataMissing(f"the input {tensor.name!r} declares no shape", where=tensor.name, hint=HINT)
        if tensor.dtype in ("str", "unknown") or tensor.dtype.startswith(("sequence", "optional", "complex")):
            raise DataMissing(
                f"the input {tensor.name!r} is {tensor.dtype}, which is not made up",
                where=tensor.name,
                hint=HINT,
            )
    plan = _plans(inputs)[0] if model is None else _working_plan(inputs, seed, model)
    for index in range(samples):
        yield _feeds(inputs, plan, np.random.default_rng((seed, index)))


HINT = "upload a dataset whose arrays are named after the model's inputs"
Plan = tuple[int | None, int, int]
"""Size of free image axes or None, size of other free axes, and where integers end."""


def _plans(inputs: Sequence[TensorSummary]) -> tuple[Plan, ...]:
    """Guesses in order: sizes first, since most models run with the first integers."""
    images = any(_is_image(tensor) for tensor in inputs)
    free = any(_is_free(size) for tensor in inputs for size in (tensor.shape or (None,))[1:])
    integers = any(tensor.dtype.startswith(("int", "uint")) for tensor in inputs)
    sizes: list[tuple[int | None, int]] = [(None, AXIS_SIZES[0])]
    if images:
        sizes = [(size, size) for size in IMAGE_SIZES]
    elif free or any(len(tensor.shape or ()) == 1 for tensor in inputs):
        sizes = [(None, size) for size in AXIS_SIZES]
    limits = INTEGER_LIMITS if integers else INTEGER_LIMITS[:1]
    pairs = itertools.product(limits, sizes)
    return tuple((image, size, limit) for limit, (image, size) in pairs)[:MAX_TRIES]


def _working_plan(inputs: Sequence[TensorSummary], seed: int, model: ir.Model) -> Plan:
    from compression.runtime import open_session, run

    session = open_session(model, device="cpu", threads=1, optimize=False)
    last = "no guess was small enough"
    for plan in _plans(inputs):
        feeds = _feeds(inputs, plan, np.random.default_rng((seed, 0)))
        if sum(array.size for array in feeds.values()) > MAX_ELEMENTS:
            continue
        try:
            results = run(session, feeds)
        except CompressionError as error:
            last = error.message
            continue
        if all(np.size(result) for result in results.values() if isinstance(result, np.ndarray)):
            return plan
        last = "every output is empty"
    raise DataMissing(f"no input could be made up that the model runs on: {last}", hint=HINT)


def _feeds(inputs: Sequence[TensorSummary], plan: Plan, random: np.random.Generator) -> Feeds:
    sizes: dict[str, int] = {}
    shapes = {tensor.name: _shape(tensor, plan, sizes) for tensor in inputs}
    longest = max((shape[1] for shape in shapes.values() if len(shape) > 1), default=1)
    return {tensor.name: _array(tensor, shapes[tensor.name], plan, longest, random) for tensor in inputs}


def _shape(tensor: TensorSummary, plan: Plan, sizes: dict[str, int]) -> tuple[int, ...]:
    """Axes of one name get one size; a free batch axis gets 1."""
    image, other, _ = plan
    shape: Sequence[Dim] = tensor.shape if tensor.shape is not None else (None, None)
    made = []
    for axis, size in enumerate(shape):
        if isinstance(size, int):
            made.append(size)
            continue
        guess = 1 if axis == _batch_axis(shape) else other
        if image is not None and _is_image(tensor) and axis >= 1:
            guess = 3 if axis == _channel_axis(shape) else image
        made.append(sizes.setdefault(size, guess) if size else guess)
    return tuple(made)


def _array(
    tensor: TensorSummary, shape: tuple[int, ...], plan: Plan, longest: int, random: np.random.Generator
) -> np.ndarray:
    from compression.data.dtypes import as_dtype

    dtype = as_dtype(tensor.dtype)
    if tensor.dtype.startswith(("int", "uint")):
        fixed = _meaning(tensor.name.lower(), longest)
        if fixed is not None:
            return np.full(shape, fixed, dtype)
        return random.integers(0, 256 if tensor.dtype == "uint8" else plan[2], shape).astype(dtype)
    return np.ones(shape, bool) if tensor.dtype == "bool" else random.normal(size=shape).astype(dtype)


def _meaning(name: str, longest: int) -> int | None:
    """What integers of a telling name should be."""
    if name in SAMPLE_RATES:
        return 16000
    if "mask" in name:
        return 1
    return longest if "length" in name or name.endswith(("_len", "lens", "size")) else None


def _batch_axis(shape: Sequence[Dim]) -> int:
    """The first axis; in a recurrent state such as (2, ?, 128) the one that is free."""
    state = len(shape) == 3 and [_is_free(size) for size in shape] == [False, True, False]
    return 1 if state else 0


def _is_image(tensor: TensorSummary) -> bool:
    shape = tensor.shape
    return shape is not None and len(shape) == 4 and tensor.dtype not in ("bool",)


def _channel_axis(shape: Sequence[Dim]) -> int:
    """Where a free axis would be the channels: second, unless the last is known to hold them."""
    return 3 if shape[3] in (1, 3, 4) else 1


def _is_free(size: Dim) -> bool:
    return not isinstance(size, int)
