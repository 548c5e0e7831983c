"""Steps that read another model: declared by a field's type, forecast with its summary, run with its file."""

import json
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from compression.cache_key import step_key
from compression.errors import InvalidModel, NotApplicable
from compression.graph import load, summarise
from compression.job import Job
from compression.method import (
    NO_MODELS,
    Change,
    Forecast,
    Method,
    OtherModel,
    Role,
    StepContext,
    StepOutcome,
)
from compression.pipeline import run
from compression.preflight import preflight
from compression.registry import METHODS
from compression.spec import CompressionSpec
from compression.summary import DatasetSummary, ModelSummary
from tests.compression.models import small_model, weights_of

ONE, TWO = "mdl_" + "1" * 26, "mdl_" + "2" * 26


class Blend(Method):
    """Takes the weights of another model."""

    title: ClassVar[str] = "takes weights"
    changes: ClassVar[tuple[Change, ...]] = ("values",)
    example: ClassVar[Mapping[str, Any]] = {}

    method: Literal["blend"] = "blend"
    source_model: OtherModel
    second: OtherModel | None = None
    mode: OtherModel | Literal["original"] = "original"

    def forecast(
        self,
        model: ModelSummary,
        data: Mapping[Role, DatasetSummary],
        models: Mapping[str, ModelSummary] = NO_MODELS,
    ) -> Forecast:
        forecast = super().forecast(model, data, models)
        after = models.get(self.source_model, model)
        return forecast.model_copy(update={"model_after": after})

    def apply(self, model: ir.Model, context: StepContext) -> StepOutcome:
        assert set(context.models) == set(self.other_models())
        other = load(context.models[self.source_model])
        for name, value in model.graph.initializers.items():
            value.const_value = other.graph.initializers[name].const_value
        return StepOutcome(model=model, layers=())


class Spec(CompressionSpec):
    steps: tuple[Blend, ...]  # type: ignore[assignment]


def spec(**fields: Any) -> CompressionSpec:
    step = {"source_model": ONE, **fields}
    return Spec.model_validate({"steps": [step], "evaluation": {"latency": {"runs": 5}}})


def test_they_are_found_from_the_fields() -> None:
    assert spec().other_models() == (ONE,)
    assert spec(second=TWO, mode=ONE).other_models() == (ONE, TWO)
    plain = [kind.model_validate(dict(kind.example)) for kind in METHODS.values()]
    assert all(step.other_models() == () for step in plain), "an example runs as it stands"


@pytest.mark.parametrize("id", ["", "mdl_1", "dst_" + "1" * 26, f"{ONE}\n", "../" + ONE])
def test_only_ids_of_models_are_taken(id: str) -> None:
    with pytest.raises(ValidationError):
        spec(source_model=id)


def test_a_forecast_knows_their_summaries(tmp_path: Path) -> None:
    path = small_model(tmp_path / "m.onnx")
    model = summarise(load(path), size_bytes=1000)
    other = model.model_copy(update={"size_bytes": 10})
    assert preflight(spec(), model, {}, {ONE: other}).estimated_size_bytes == 10
    refused = preflight(spec(), model, {})
    assert [problem.code for problem in refused.steps[0].problems] == ["model_missing"]


def test_the_key_goes_by_their_hashes_and_not_by_their_ids() -> None:
    def key(of: CompressionSpec, hashes: Mapping[str, str]) -> str:
        return step_key("a", of, 0, {}, "cpu", models_sha256=hashes)

    assert key(spec(), {ONE: "e"}) == key(spec(source_model=TWO), {TWO: "e"})
    assert key(spec(), {ONE: "e"}) != key(spec(), {ONE: "f"})
    assert key(spec(second=TWO), {ONE: "e", TWO: "f"}) != key(spec(second=TWO), {ONE: "f", TWO: "e"})


def make_job(folder: Path, models: Mapping[str, Path]) -> Job:
    upload = small_model(folder / "upload")
    return Job(spec=spec(), model=upload, models=models, folder=folder / "job", threads=1)


def other_weights(folder: Path) -> Path:
    path = small_model(folder / "plain.onnx")
    model = ir.load(path)
    for name, value in model.graph.initializers.items():
        if value.const_value is not None and value.const_value.dtype == ir.DataType.FLOAT:
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(0.5), name=name)
    ir.save(model, path)
    return path


def test_a_run_hands_them_to_their_step_unpacked(tmp_path: Path) -> None:
    path = other_weights(tmp_path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.write(path, "inside.onnx")
    job = make_job(tmp_path, {ONE: tmp_path / "other.zip"})
    result = run(job, lambda _: None, nullcontext)
    made = weights_of(job.folder / result.outputs[0].path)
    np.testing.assert_array_equal(made["conv2.w"], weights_of(path)["conv2.w"])
    recipe = json.loads((job.folder / "outputs" / "recipe.json").read_text())
    assert recipe["steps"][0]["source_model"] == ONE
    assert recipe["made_with"]["models_sha256"].keys() == {ONE}


def test_a_run_without_them_says_which_is_missing(tmp_path: Path) -> None:
    with pytest.raises(NotApplicable, match=ONE):
        run(make_job(tmp_path, {}), lambda _: None, nullcontext)


def test_one_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model at all")
    with pytest.raises(InvalidModel) as caught:
        run(make_job(tmp_path, {ONE: tmp_path / "bad.onnx"}), lambda _: None, nullcontext)
    assert (caught.value.where or "").startswith(ONE)
