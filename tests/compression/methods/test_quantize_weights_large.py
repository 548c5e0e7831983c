"""quantize_weights goes through a model tensor by tensor: its memory is that of the largest one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.compression.methods.large_model import write_model


def quantized(path, result, *more, **parameters):
    command = [sys.executable, "-m", "tests.compression.methods.large_model", str(path), str(result)]
    done = subprocess.run(
        [*command, json.dumps({"method": "quantize_weights", **parameters}), *more],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "parameters",
    [{"bits": 4, "block_size": 32}, {"bits": 3, "block_size": 32, "symmetric": False}, {}],
    ids=["int4", "3 bits", "int8"],
)
def test_three_gigabytes_take_no_more_than_one_and_a_half(parameters, tmp_path):
    if shutil.disk_usage(tmp_path).free < 12 << 30:
        pytest.skip("needs 12 GB of free disk")
    path = write_model(tmp_path, layers=50, width=4096)
    assert (tmp_path / "weights.bin").stat().st_size > 3.3e9
    told = quantized(path, tmp_path / "result.onnx", **parameters)
    assert told["changed"] == 50
    assert told["peak"] < 1.5e9, told
    (tmp_path / "weights.bin").unlink()


@pytest.mark.parametrize("parameters", [{"bits": 4, "block_size": 32}, {}], ids=["int4", "int8"])
def test_more_layers_take_no_more_memory(parameters, tmp_path):
    """As above, small: 4 MB weights, one and thirty of them, and nothing is run."""
    peaks = []
    for count in (1, 30):
        folder = tmp_path / str(count)
        folder.mkdir()
        told = quantized(
            write_model(folder, layers=count, width=1024), folder / "result.onnx", "0", **parameters
        )
        assert told["changed"] == count
        peaks.append(told["peak"])
    # int8 keeps integers below 8 MB in memory until the model is saved, a quarter of the weights.
    assert peaks[1] - peaks[0] < (30e6 if parameters else 60e6)
