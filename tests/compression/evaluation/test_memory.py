import subprocess

import numpy as np

from compression.evaluation.memory import peak_memory_bytes
from tests.compression.evaluation.models import linear

FEEDS = {"x": np.zeros((1, 1024), np.float32)}


def measure(path, folder, feeds=FEEDS, device="cpu"):
    return peak_memory_bytes(path, feeds, device=device, threads=1, workdir=folder)


def test_a_model_takes_at_least_its_weights(tmp_path):
    weight = np.random.default_rng(0).normal(size=(1024, 8192)).astype(np.float32)
    found = measure(linear(tmp_path / "m.onnx", weight), tmp_path)
    assert weight.nbytes <= found <= 6 * weight.nbytes
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


def test_loading_alone_is_measured_without_inputs(tmp_path):
    assert measure(linear(tmp_path / "m.onnx", np.ones((1024, 64), np.float32)), tmp_path, feeds=None) > 0


def test_no_figure_on_a_gpu_or_for_a_model_that_does_not_open(tmp_path):
    broken = tmp_path / "m.onnx"
    broken.write_bytes(b"nothing")
    assert measure(broken, tmp_path) is None
    assert measure(broken, tmp_path, device="cuda") is None


def test_no_figure_where_no_process_may_be_started(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(subprocess, "run", refuse)
    assert measure(tmp_path / "m.onnx", tmp_path) is None
