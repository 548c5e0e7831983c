"""What a trained encoder and decoder do to samples they have not seen, measured on the files themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compression import runtime
from compression.method import StepContext

BATCH = 64
HALF = 0.5

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Over all held-out samples and positions."""

    samples: int
    relative_mse: float
    """Squared error by squared size: sum (x - y)^2 / sum x^2."""
    explained_variance: float
    """1 - sum (x - y)^2 / sum (x - mean)^2, where the mean is each feature's; 1 is perfect, 0 as bad as the mean."""
    active_share: float
    """Of a code's units: those not zero; of sigmoid units those over one half."""
    mean_activation: float
    dead_share: float
    """Units that no held-out sample activates."""

    def document(self) -> dict[str, float]:
        return {name: float(value) for name, value in vars(self).items()}


def measure(
    encoder: Path,
    decoder: Path,
    samples: Array,
    feature_axis: int | None,
    *,
    sigmoid: bool,
    context: StepContext,
) -> Measured:
    """Runs both files one after the other.

    Args:
        encoder: from samples to codes [N, ..., hidden].
        decoder: back.
        samples: [N, ...], float32.
        feature_axis: along which features lie; None where every entry is one.
        sigmoid: whether the units are sigmoid ones.
        context: device and threads.
    """
    tally = _Tally(_feature_means(samples, feature_axis), HALF if sigmoid else 0.0)
    sessions = [
        runtime.open_session(file, device=context.device, threads=context.threads)
        for file in (encoder, decoder)
    ]
    for batch, code, back in _runs(sessions, samples):
        tally.add(batch.astype(np.float64), code.astype(np.float64), back.astype(np.float64))
    return tally.result(len(samples))


def _runs(sessions: list[Any], samples: Array) -> Iterator[tuple[Array, Array, Array]]:
    name = sessions[0].get_inputs()[0].name
    for start in range(0, len(samples), BATCH):
        batch = samples[start : start + BATCH]
        (code,) = runtime.run(sessions[0], {name: batch}).values()
        (back,) = runtime.run(sessions[1], {sessions[1].get_inputs()[0].name: code}).values()
        yield batch, code, back


def _feature_means(samples: Array, axis: int | None) -> Array:
    other = tuple(place for place in range(samples.ndim) if place != axis) if axis is not None else (0,)
    means: Array = samples.mean(axis=other, keepdims=True, dtype=np.float64)
    return means


class _Tally:
    def __init__(self, means: Array, threshold: float) -> None:
        self._means = means
        self._threshold = threshold
        self._error = self._size = self._spread = self._sum = 0.0
        self._active: Array | None = None
        self._codes = 0

    def add(self, samples: Array, code: Array, back: Array) -> None:
        self._error += float(((samples - back) ** 2).sum())
        self._size += float((samples**2).sum())
        self._spread += float(((samples - self._means) ** 2).sum())
        units = code.reshape(-1, code.shape[-1])
        active = (np.abs(units) > self._threshold).sum(axis=0)
        self._active = active if self._active is None else self._active + active
        self._sum += float(units.sum())
        self._codes += len(units)

    def result(self, samples: int) -> Measured:
        assert self._active is not None
        entries = self._codes * len(self._active)
        return Measured(
            samples=samples,
            relative_mse=self._error / max(self._size, 1e-30),
            explained_variance=1 - self._error / max(self._spread, 1e-30),
            active_share=float(self._active.sum()) / entries,
            mean_activation=self._sum / entries,
            dead_share=float((self._active == 0).mean()),
        )
