"""What convolutions give for simple inputs."""

import numpy as np
from numpy.typing import NDArray


def uniform_response(
    weight: NDArray[np.floating], groups: int, values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What a Conv without bias gives, away from padding, where each input channel has one value everywhere.

    Args:
        weight: [output channels, input channels of a group, ...].
        groups: of channels.
        values: of shape (input channels,).

    Returns:
        Of shape (output channels,).
    """
    wide = np.asarray(weight, np.float64)
    kernels = wide.reshape(groups, wide.shape[0] // groups, wide.shape[1], -1).sum(axis=3)
    return np.asarray(np.einsum("goc,gc->go", kernels, values.reshape(groups, -1)).reshape(-1))
