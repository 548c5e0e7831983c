"""Reads zips of images in one folder per class: decoded when asked for, laid out as the model wants them."""

import io
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, UnidentifiedImageError

from compression.data.columns import ArrayColumn, Column
from compression.data.fit import LABELS, channel_axis
from compression.data.limits import Limits
from compression.errors import InvalidDataset
from compression.summary import ArraySummary, TensorSummary

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp"})
FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""Decoders that are open to uploaded bytes; PIL knows many more, most of them rarely looked at."""
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageColumn(Column):
    """Images of one archive. Float inputs get values of 0..1, integer inputs 0..255."""

    def __init__(self, path: Path, members: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
        self._archive = zipfile.ZipFile(path)
        self._members = members
        self._limits = limits
        sizes = {self._size(member) for member in members}
        self.summary = ArraySummary(
            name="images",
            dtype="uint8",
            shape=(len(members), max(h for h, _ in sizes), max(w for _, w in sizes), 3),
            ragged=len(sizes) > 1,
        )

    def batches(self, target: TensorSummary) -> bool:
        _, height, width, _ = _layout(target)
        return not self.summary.ragged or (height is not None and width is not None)

    def read(self, start: int, stop: int, target: TensorSummary | None = None) -> np.ndarray:
        axis, height, width, channels = _layout(target)
        images = []
        for member in self._members[start:stop]:
            image = self._decode(member).convert(MODES[channels])
            wanted = (width or image.width, height or image.height)
            resized = image if image.size == wanted else image.resize(wanted, Image.Resampling.BILINEAR)
            images.append(np.asarray(resized).reshape(wanted[1], wanted[0], channels))
        batch = np.stack(images)
        if axis == 1:
            batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2))
        if target is not None and "float" in target.dtype:
            return batch.astype(np.float32) / np.float32(255)
        return batch

    def close(self) -> None:
        self._archive.close()

    def _size(self, member: zipfile.ZipInfo) -> tuple[int, int]:
        with self._open(member) as image:
            return image.height, image.width

    def _decode(self, member: zipfile.ZipInfo) -> Image.Image:
        try:
            with self._open(member) as image:
                image.load()
                return image
        except (OSError, SyntaxError, ValueError) as error:
            raise _broken(member, error) from error

    def _open(self, member: zipfile.ZipInfo) -> Image.Image:
        """Reads the image's header only; pixels are decoded by `load`."""
        if member.file_size > self._limits.image_bytes:
            raise InvalidDataset(f"the image {member.filename!r} is over {self._limits.image_bytes:,} bytes")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(io.BytesIO(self._archive.read(member)), formats=FORMATS)
        except (Image.DecompressionBombError, zipfile.BadZipFile, OSError, RuntimeError) as error:
            raise _broken(member, error) from error
        if image.width * image.height > self._limits.image_pixels:
            raise InvalidDataset(
                f"the image {member.filename!r} is {image.width}x{image.height}, "
                f"more than {self._limits.image_pixels:,} pixels",
                where=member.filename,
            )
        return image


def read_images(
    path: Path, members: Sequence[zipfile.ZipInfo], limits: Limits
) -> tuple[list[Column], tuple[str, ...] | None]:
    """The images and, where they lie in folders, their labels; then the folders' names in label order."""
    members = sorted(members, key=lambda member: member.filename)
    folders = [PurePosixPath(member.filename).parent.name for member in members]
    images: Column = ImageColumn(path, members, limits)
    classes = tuple(sorted(set(folders)))
    if len(classes) < 2:
        return [images], None
    if "" in classes:
        stray = members[folders.index("")].filename
        raise InvalidDataset(f"the image {stray!r} lies beside the class folders, not in one", where=stray)
    labels = np.array([classes.index(folder) for folder in folders], np.int64)
    return [images, ArrayColumn(LABELS, labels)], classes


def _broken(member: zipfile.ZipInfo, error: Exception) -> InvalidDataset:
    reason = "it is of no known kind" if isinstance(error, UnidentifiedImageError) else str(error)
    return InvalidDataset(f"{member.filename!r} is no readable image: {reason}", where=member.filename)


def _layout(target: TensorSummary | None) -> tuple[int, int | None, int | None, int]:
    """Channel axis, height, width and channels that an input wants; None where any size will do."""
    if target is None or target.shape is None:
        return (3 if target is None else 1), None, None, 3
    shape = target.shape
    axis = channel_axis(shape) or 1
    rows, columns = (shape[2], shape[3]) if axis == 1 else (shape[1], shape[2])
    channels = shape[axis]
    return (
        axis,
        rows if isinstance(rows, int) else None,
        columns if isinstance(columns, int) else None,
        channels if isinstance(channels, int) else 3,
    )
