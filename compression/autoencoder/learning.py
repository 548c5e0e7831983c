"""What an autoencoder makes smaller, and what its weights are held to meanwhile."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compression.autoencoder.codec import CODE, RECONSTRUCTION, ROWS, Codec
from compression.autoencoder.penalties import kl, l1, reconstruction_error
from compression.autoencoder.wish import Wish
from compression.data.columns import ArrayColumn
from compression.data.dataset import Dataset
from compression.graph.trainable import TrainableGraph
from compression.summary import DatasetSummary, TensorSummary
from compression.training.batches import Batch
from compression.training.objectives import Objective, outputs_of

Array = npt.NDArray[Any]
PIECE = 1 << 22
"""Entries that are looked at in one go."""


class Reconstruction(Objective):
    """The squared error of the reconstruction, and the penalty on the code where it is not cut to k."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish

    def loss(self, view: TrainableGraph, batch: Batch) -> Tensor:
        found = outputs_of(view, batch)
        rows = torch.from_numpy(batch.feeds[ROWS]).to(view.device)
        error = reconstruction_error(rows, found[RECONSTRUCTION])
        if self._wish.sparsity == "topk":
            return error
        code = found[CODE]
        penalty = l1(code) if self._wish.sparsity == "l1" else kl(code, self._wish.target)
        return error + self._wish.weight * penalty


class BoundedAtoms:
    """Holds what a unit adds to the reconstruction to length one at most.

    Without it a code shrinks under L1 while the decoder grows (Lee et al. 2007, Efficient sparse coding, equation 3).
    """

    @torch.no_grad()
    def apply(self, view: TrainableGraph) -> None:
        tied = "decode" not in view.weights
        atoms = view.weights["encode" if tied else "decode"]
        lengths = torch.linalg.vector_norm(atoms, dim=0 if tied else 1, keepdim=True)
        atoms.div_(lengths.clamp(min=1.0))

    def shape_gradients(self, view: TrainableGraph) -> None:
        pass


def trained(view: TrainableGraph, fresh: Codec) -> Codec:
    """The codec with the view's weights."""
    found = {name: weight.detach().cpu().numpy().copy() for name, weight in view.weights.items()}
    return Codec(
        encode=found["encode"],
        encode_bias=found["encode_bias"],
        decode=found.get("decode"),
        decode_bias=found["decode_bias"],
        activation=fresh.activation,
        kept=fresh.kept,
    )


def standardise(rows: Array) -> tuple[Array, float]:
    """Brings rows [R, features] to mean zero in each feature and variance one over all, in place.

    Returns the means, [features] float64, and the one number that rows were divided by.
    """
    pieces = _pieces(rows)
    mean: Array = sum(rows[piece].sum(axis=0, dtype=np.float64) for piece in pieces) / len(rows)
    squares = sum(float(((rows[piece] - mean) ** 2).sum()) for piece in pieces)
    scale = max(float(np.sqrt(squares / rows.size)), 1e-12)
    for piece in pieces:
        rows[piece] = (rows[piece] - mean) / scale
    return mean, scale


def _pieces(rows: Array) -> list[slice]:
    step = max(PIECE // rows.shape[1], 1)
    return [slice(start, start + step) for start in range(0, len(rows), step)]


def as_dataset(rows: Array) -> tuple[Dataset, TensorSummary]:
    """Rows as a dataset of one array, and the input that takes them."""
    column = ArrayColumn(ROWS, rows)
    summary = DatasetSummary(
        format="npz", samples=len(rows), size_bytes=rows.nbytes, arrays=(column.summary,)
    )
    return Dataset(summary, [column]), TensorSummary(
        name=ROWS, dtype="float32", shape=("rows", rows.shape[1])
    )
