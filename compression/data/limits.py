"""How big a dataset may be: what its file declares is held against these before any of it is read."""

from collections.abc import Iterable
from dataclasses import dataclass

from compression.errors import InvalidDataset


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Caps on what a file may open to, in bytes unless said otherwise."""

    total_bytes: int = 64 * 2**30
    """All arrays together, decompressed."""
    bomb_bytes: int = 256 * 2**20
    """Below this a file may open to any multiple of its size."""
    ratio: float = 100.0
    """Above `bomb_bytes`, how many times its own size a file may open to."""
    members: int = 2_000_000
    """Files in an archive."""
    arrays: int = 1000
    image_bytes: int = 64 * 2**20
    """One encoded image."""
    image_pixels: int = 50_000_000
    """One decoded image, in pixels."""

    def check_opened_size(self, declared_bytes: Iterable[int], file_bytes: int) -> None:
        """Refuses a file that would open to too much.

        Raises:
            InvalidDataset: the sum is over `total_bytes`, or out of proportion to the file.
        """
        total = sum(declared_bytes)
        if total > self.total_bytes:
            raise InvalidDataset(
                f"the file opens to {total:,} bytes, more than the {self.total_bytes:,} that are allowed",
                hint="upload fewer samples",
            )
        if total > self.bomb_bytes and total > self.ratio * file_bytes:
            raise InvalidDataset(
                f"a file of {file_bytes:,} bytes that opens to {total:,} looks like a decompression bomb",
                hint="save the arrays without compression, numpy.savez(...)",
            )
