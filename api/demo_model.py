"""The demo's own model and data: a small convolutional classifier of scikit-learn's handwritten digits."""

import contextlib
import io
import logging
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

EPOCHS = 12
BATCH = 64
CALIBRATION_SAMPLES = 256


def make_demo_files(folder: Path) -> float:
    """Train, and write digits.onnx, training.npz, calibration.npz and evaluation.npz into `folder`.

    Training and evaluation data are labelled; calibration data are not.

    Returns the trained classifier's accuracy on the held-out third, as torch computes it.
    """
    import numpy as np
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    split = train_test_split(
        images, digits.target.astype(np.int64), test_size=1 / 3, random_state=0, stratify=digits.target
    )
    train_x, test_x, train_y, test_y = (torch.from_numpy(part) for part in split)
    torch.manual_seed(0)
    network = _network()
    _train(network, train_x, train_y)
    with torch.no_grad():
        accuracy = float((network(test_x).argmax(1) == test_y).float().mean())
    _export(network, folder / "digits.onnx")
    np.savez(folder / "training.npz", image=train_x.numpy(), labels=train_y.numpy())
    np.savez(folder / "calibration.npz", image=train_x[:CALIBRATION_SAMPLES].numpy())
    np.savez(folder / "evaluation.npz", image=test_x.numpy(), labels=test_y.numpy())
    return accuracy


def _network() -> "nn.Module":
    from torch import nn

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32),
        *block(32, 64),
        nn.MaxPool2d(2),
        *block(64, 128),
        *block(128, 128),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def _train(network: "nn.Module", images: "Tensor", labels: "Tensor") -> None:
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=4e-3, epochs=EPOCHS, steps_per_epoch=-(-len(images) // BATCH)
    )
    network.train()
    for _ in range(EPOCHS):
        for rows in torch.split(torch.randperm(len(images)), BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(network(images[rows]), labels[rows])
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    network.eval()


def _export(network: "nn.Module", path: Path) -> None:
    import torch

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 1, 8, 8),),
            str(path),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            dynamo=True,
        )


if __name__ == "__main__":
    print(f"accuracy {make_demo_files(Path(sys.argv[1])):.4f}")
