"""Architectures with random weights that are cut by half: torch modules from `transformers` configurations, and files.

The classes are those that users take; the configurations are small, so that two cores have them done in minutes.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

IMAGES, TOKENS = (2, 3, 64, 64), (2, 32)
VOCABULARY = 500


class Scores(nn.Module):
    """Of a transformers model only the logits, which is what is exported."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, **self._more()).logits  # type: ignore[no-any-return]

    def _more(self) -> dict[str, bool]:
        generates = hasattr(self.model.config, "use_cache") and type(self.model).__name__.endswith("LM")
        return {"use_cache": False} if generates or "LMHead" in type(self.model).__name__ else {}


def resnet(t: Any) -> Any:
    sizes = {"embedding_size": 32, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2]}
    return t.ResNetForImageClassification(t.ResNetConfig(**sizes, layer_type="bottleneck", num_labels=10))


def mobilenet_v2(t: Any) -> Any:
    return t.MobileNetV2ForImageClassification(t.MobileNetV2Config(image_size=64, num_labels=10))


def convnext(t: Any) -> Any:
    sizes = {"hidden_sizes": [48, 96, 192, 384], "depths": [2, 2, 2, 2]}
    return t.ConvNextForImageClassification(t.ConvNextConfig(**sizes, num_labels=10))


def regnet(t: Any) -> Any:
    sizes = {
        "embedding_size": 32,
        "hidden_sizes": [32, 64, 128, 256],
        "depths": [1, 2, 2, 1],
        "groups_width": 16,
    }
    return t.RegNetForImageClassification(t.RegNetConfig(**sizes, num_labels=10))


def swin(t: Any) -> Any:
    sizes = {"embed_dim": 48, "depths": [2, 2, 2], "num_heads": [2, 4, 8], "window_size": 4, "patch_size": 2}
    return t.SwinForImageClassification(
        t.SwinConfig(**sizes, image_size=64, num_labels=10, attn_implementation="eager")
    )


def vit(t: Any) -> Any:
    sizes = {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 768}
    return t.ViTForImageClassification(t.ViTConfig(**sizes, image_size=64, patch_size=8, num_labels=10))


def bert(t: Any) -> Any:
    sizes = {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 6, "intermediate_size": 768}
    return t.BertForSequenceClassification(t.BertConfig(**sizes, vocab_size=VOCABULARY))


def gpt2(t: Any) -> Any:
    sizes = {"n_embd": 192, "n_layer": 3, "n_head": 6, "n_positions": 64}
    return t.GPT2LMHeadModel(t.GPT2Config(**sizes, vocab_size=VOCABULARY))


def llama(t: Any) -> Any:
    sizes = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 8}
    return t.LlamaForCausalLM(
        t.LlamaConfig(**sizes, num_key_value_heads=4, vocab_size=VOCABULARY, max_position_embeddings=64)
    )


BUILDERS: Mapping[str, Callable[[Any], Any]] = {
    function.__name__: function
    for function in (resnet, mobilenet_v2, convnext, regnet, swin, vit, bert, gpt2, llama)
}
OF_TOKENS = frozenset({"bert", "gpt2", "llama"})
LIGHT = ("resnet50", "densenet121", "inception_v1", "inception_v2", "shufflenet", "squeezenet", "vgg19")
"""Files of the onnx wheel; nobody has the torch modules that they came from."""


def module(name: str) -> Scores:
    """With random weights and statistics, the same each time."""
    import transformers

    torch.manual_seed(0)
    built = Scores(BUILDERS[name](transformers)).eval()
    for part in built.modules():
        _enliven(part)
    return built


def _enliven(part: Any) -> None:
    """Weights that keep signals at their size, and biases and statistics that a wrong cut would show in."""
    if isinstance(part, nn.Linear | nn.Conv2d):
        nn.init.normal_(part.weight, std=(2 / part.weight[0].numel()) ** 0.5)
    if isinstance(part, nn.BatchNorm2d):
        nn.init.normal_(part.running_mean, std=0.2)
        nn.init.uniform_(part.running_var, 0.5, 1.5)
    if isinstance(part, nn.BatchNorm2d | nn.LayerNorm) and part.bias is not None:
        nn.init.normal_(part.bias, std=0.2)


def example(name: str, seed: int = 0) -> Tensor:
    random = np.random.default_rng(seed)
    if name in OF_TOKENS:
        return torch.from_numpy(random.integers(0, VOCABULARY, TOKENS))
    return torch.from_numpy(random.normal(size=IMAGES).astype(np.float32))


def export(network: nn.Module, example: Tensor, path: Path) -> None:
    """Input `x` with an open batch axis, output `y`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            opset_version=20,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
            input_names=["x"],
            output_names=["y"],
            verbose=False,
        )
    program.save(str(path), external_data=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
