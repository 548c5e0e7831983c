"""torch.export programs as ONNX files, converted here: these were made by the tests themselves."""

import zipfile
from pathlib import Path

import pytest
import torch

from compression.errors import InvalidModel, NeedsConversion, UnsupportedModel
from compression.graph import load, programs
from compression.graph.programs import convert_program, is_program
from tests.programs import Decomposition, save_program

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


class Pair(torch.nn.Module):
    def forward(self, left: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return left + 1, left * 2


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_program(tmp_path_factory.mktemp("program") / "net.pt2")


def test_a_program_is_known_by_its_members(program: Path) -> None:
    with zipfile.ZipFile(program) as archive:
        assert is_program(archive.namelist())
    assert is_program(["version", "serialized_exported_program.json"])
    assert not is_program(["m/archive_format", "m/data/aotinductor/model/code.so"])
    assert not is_program(["models/config.json", "net.onnx"])


def test_it_is_not_opened_as_a_model(program: Path, tmp_path: Path) -> None:
    with pytest.raises(NeedsConversion, match="pt2") as caught:
        load(program, workdir=tmp_path)
    assert "torch.onnx.export" in (caught.value.hint or "")


def test_a_large_one_keeps_its_weights_beside_it(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert_program(program, tmp_path / "small")
    monkeypatch.setattr(programs, "SINGLE_FILE_BYTES", 100)
    convert_program(program, tmp_path / "large")
    small, large = (load(tmp_path / name, workdir=tmp_path) for name in ("small", "large"))
    assert large.meta["external_files"]
    assert not small.meta["external_files"]
    for name, value in small.graph.initializers.items():
        assert value.const_value.tobytes() == large.graph.initializers[name].const_value.tobytes()


def test_several_outputs_without_names(tmp_path: Path) -> None:
    convert_program(save_program(tmp_path / "pair.pt2", Pair(), (2, 3)), tmp_path / "pair.onnx")
    model = load(tmp_path / "pair.onnx")
    assert [value.name for value in model.graph.inputs] == ["left"]
    assert len({value.name for value in model.graph.outputs}) == 2


def test_what_cannot_be_read_or_written_says_why(program: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.pt2"
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(cut, "w") as target:
        for info in source.infolist():
            target.writestr(info, b"{}" if info.filename.endswith("model.json") else source.read(info))
    with pytest.raises(InvalidModel, match="cannot read"):
        convert_program(cut, tmp_path / "x")
    eigen = save_program(tmp_path / "eigen.pt2", Decomposition(), (2, 3, 3))
    with pytest.raises(UnsupportedModel, match="linalg_eigh"):
        convert_program(eigen, tmp_path / "x")
