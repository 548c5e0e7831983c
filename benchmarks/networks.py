"""The networks of the training benchmarks: built in torch, trained once, kept as ONNX files.

    python -m benchmarks.networks lenet5 FOLDER_OF_IMAGES lenet5.onnx

LeNet-300-100 and LeNet-5 are those of Han et al. 2016 (arXiv:1510.00149, tables 2 and 3: 266 K and 431 K parameters);
the small ResNet and the MobileNet-style network stand for residual and depthwise architectures.
"""

import argparse
import contextlib
import io
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.images import Images, read_images


def lenet_300_100() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside an identity, or beside a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


class Separable(nn.Module):
    """An inverted residual block (Sandler et al. 2018): expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = 4 * inputs
        self.body = nn.Sequential(
            convolution(inputs, wide, 1, 1),
            nn.ReLU6(),
            convolution(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(),
            convolution(wide, outputs, 1, 1),
        )
        self.joins = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.joins else y


def convolution(inputs: int, outputs: int, size: int, stride: int, groups: int = 1) -> nn.Module:
    """A convolution without bias, and BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


def small_resnet() -> nn.Module:
    return nn.Sequential(
        convolution(1, 16, 3, 1),
        nn.ReLU(),
        Residual(16, 16, 1),
        Residual(16, 32, 2),
        Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def small_mobilenet(width: int = 1) -> nn.Module:
    """`width` multiplies all channels but those of the image and of the classes."""
    narrow, middle, wide = (width * channels for channels in (16, 24, 32))
    return nn.Sequential(
        convolution(1, narrow, 3, 2),
        nn.ReLU6(),
        Separable(narrow, narrow, 1),
        Separable(narrow, middle, 2),
        Separable(middle, middle, 1),
        Separable(middle, wide, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(wide, 10),
    )


NETWORKS: Mapping[str, Callable[[], nn.Module]] = {
    "lenet-300-100": lenet_300_100,
    "lenet5": lenet5,
    "resnet": small_resnet,
    "mobilenet": small_mobilenet,
    "mobilenet-wide": partial(small_mobilenet, 3),
}


def train(network: nn.Module, images: Images, *, epochs: int, batch: int = 128, seed: int = 0) -> float:
    """Trains with AdamW, one cycle and label smoothing 0.05; gives the accuracy on the test images."""
    torch.manual_seed(seed)
    x, y = torch.from_numpy(images.train_x), torch.from_numpy(images.train_y)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for _ in range(epochs):
        network.train()
        for rows in torch.split(torch.randperm(len(x)), batch):
            optimizer.zero_grad()
            loss = functional.cross_entropy(network(x[rows]), y[rows], label_smoothing=0.05)
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return accuracy(network, images)


def accuracy(network: nn.Module, images: Images) -> float:
    network.eval()
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(images.test_x), 1000)
        answers = torch.cat([network(part).argmax(1) for part in parts])
    return float(np.mean(answers.numpy() == images.test_y))


def export(network: nn.Module, path: Path) -> None:
    """Writes ONNX with input `image` of shape (batch, 1, 28, 28) and output `logits`."""
    network.eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, 28, 28),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            dynamo=True,
        )


def trained(name: str, images: Images, path: Path, *, epochs: int) -> Path:
    """The ONNX file of a trained network; trained only where the file is not there yet."""
    if not path.exists():
        torch.manual_seed(0)
        network = NETWORKS[name]()
        began = time.monotonic()
        result = train(network, images, epochs=epochs)
        path.parent.mkdir(parents=True, exist_ok=True)
        export(network, path)
        print(f"{name}: accuracy {result:.4f} after {epochs} epochs, {time.monotonic() - began:.0f} s")
    return path


def initial(name: str, path: Path, *, seed: int) -> Path:
    """The ONNX file of a network before any training; `trained` begins with that of seed 0."""
    torch.manual_seed(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    export(NETWORKS[name](), path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("images", type=Path)
    parser.add_argument("onnx", type=Path)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    trained(given.network, read_images(given.images), given.onnx, epochs=given.epochs)


if __name__ == "__main__":
    main()
