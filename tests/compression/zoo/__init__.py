"""Small networks of known architectures with random weights, exported by torch: the zoo that structure is tried on.

`NAMES` lists them, `exported(name)` gives the ONNX file's bytes, `feeds(name)` inputs for it.
"""

import functools
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tests.compression.zoo import attention, convolutional, recurrent

OPSET = 20
BATCH = 2


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network and the shape of its input, without the batch axis; `tokens` are integers below this."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch_axis: int = 0
    tokens: int | None = None


IMAGE, SEQUENCE = (3, 16, 16), (7, 6)
ENTRIES: dict[str, Entry] = {
    **{
        function.__name__: Entry(build=function, shape=IMAGE)
        for function in (
            convolutional.resnet,
            convolutional.densenet,
            convolutional.inception,
            convolutional.shufflenet,
            convolutional.shufflenet2,
            convolutional.squeezenet,
            convolutional.vgg,
            convolutional.mobilenet,
            convolutional.convnext,
            convolutional.efficientnet,
            convolutional.unet,
            convolutional.regnet,
            convolutional.groupnorm,
            convolutional.pixelshuffle,
            convolutional.transposed,
            attention.swin,
        )
    },
    "vit": Entry(build=attention.vit, shape=(3, 8, 8)),
    **{
        function.__name__: Entry(build=function, shape=(6,), tokens=30)
        for function in (attention.bert, attention.gpt, attention.llama)
    },
    "geglu": Entry(build=attention.geglu, shape=SEQUENCE),
    "encoder": Entry(build=attention.encoder, shape=(5, 16)),
    **{
        function.__name__: Entry(build=function, shape=SEQUENCE)
        for function in (recurrent.lstm, recurrent.gru, recurrent.conv_lstm)
    },
    "rnn": Entry(build=recurrent.rnn, shape=SEQUENCE, batch_axis=1),
}
NAMES = tuple(ENTRIES)


@functools.cache
def exported(name: str, *, opset: int = OPSET, fused: bool = True) -> bytes:
    """The network as torch's exporter writes it, with a free batch axis. Statistics are random, too.

    Args:
        name: one of NAMES.
        opset: of the result.
        fused: whether the exporter may fold BatchNormalization and constants.
    """
    entry, (model, example) = ENTRIES[name], _built(name)
    batch = torch.export.Dim("batch", min=2, max=64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({entry.batch_axis: batch},),
            verbose=False,
            optimize=fused,
        )
    return program.model_proto.SerializeToString()


@functools.cache
def traced(name: str, *, opset: int = 17) -> bytes:
    """The network as torch's older exporter writes it: traced, with shapes computed in the graph."""
    entry, (model, example) = ENTRIES[name], _built(name)
    free = {entry.batch_axis: "batch", **({1 - entry.batch_axis: "length"} if len(entry.shape) < 3 else {})}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (example,),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": free},
        )
    return file.getvalue()


def _built(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The network and an example of its input."""
    torch.manual_seed(len(name))
    model = ENTRIES[name].build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model, torch.from_numpy(next(iter(feeds(name).values())))


def feeds(name: str, *, batch: int = BATCH, seed: int = 0) -> dict[str, np.ndarray]:
    """Random input for the network's one input."""
    entry, random = ENTRIES[name], np.random.default_rng(seed)
    shape = list(entry.shape)
    shape.insert(entry.batch_axis, batch)
    if entry.tokens is not None:
        return {"x": random.integers(0, entry.tokens, shape)}
    return {"x": random.normal(size=shape).astype(np.float32)}
