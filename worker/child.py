"""What a child can be asked to do. Nothing else can be: these are the sandbox's entries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compression.job import FinishedStep, Job
from compression.method import Role
from compression.spec import CompressionSpec
from worker.channel import Channel

RUN_PIPELINE = "worker.child:run_pipeline"
INSPECT_MODEL = "worker.child:inspect_model"
CONVERT_MODEL = "worker.child:convert_model"
INSPECT_DATASET = "worker.child:inspect_dataset"
DESCRIBE_DEVICES = "worker.child:describe_devices"
ENTRIES = (RUN_PIPELINE, INSPECT_MODEL, CONVERT_MODEL, INSPECT_DATASET, DESCRIBE_DEVICES)


def run_pipeline(folder: Path, request: Mapping[str, Any], channel: Channel) -> Mapping[str, Any]:
    """`request`: spec, model, data (paths in the folder by role), models (paths by id), device, threads,
    finished, checkpoint (a path or null), checkpoint_every_s, request.
    """
    from compression import pipeline

    job = Job(
        spec=CompressionSpec.model_validate(request["spec"]),
        model=folder / request["model"],
        data={Role(role): folder / path for role, path in request["data"].items()},
        models={id: folder / path for id, path in request["models"].items()},
        folder=folder,
        device=request["device"],
        threads=request["threads"],
        finished=tuple(_finished_step(step) for step in request["finished"]),
        checkpoint=folder / request["checkpoint"] if request["checkpoint"] else None,
        checkpoint_every_s=request["checkpoint_every_s"],
        request=request["request"],
    )
    result = pipeline.run(job, lambda event: channel.event(event.model_dump(mode="json")), channel.timing)
    return result.model_dump(mode="json")


def inspect_model(folder: Path, request: Mapping[str, Any], channel: Channel) -> Mapping[str, Any]:
    """`request`: path of the file in the folder."""
    from compression.graph import inspect_model as inspect

    return inspect(folder / request["path"], folder / request["workdir"]).model_dump(mode="json")


def convert_model(folder: Path, request: Mapping[str, Any], channel: Channel) -> Mapping[str, Any]:
    """`request`: path of the file in the folder, and target, where the ONNX model is to be."""
    from compression.graph.programs import convert_program

    convert_program(folder / request["path"], folder / request["target"])
    return {}


def inspect_dataset(folder: Path, request: Mapping[str, Any], channel: Channel) -> Mapping[str, Any]:
    """`request`: path of the file in the folder."""
    from compression.data import inspect_dataset as inspect

    return inspect(folder / request["path"], folder / request["workdir"]).model_dump(mode="json")


def describe_devices(folder: Path, request: Mapping[str, Any], channel: Channel) -> Mapping[str, Any]:
    """The devices that models can run on inside the sandbox, as words for people."""
    from compression.runtime import available_devices, device_description

    return {device: device_description(device) for device in available_devices()}


def _finished_step(document: Mapping[str, Any]) -> FinishedStep:
    from compression.job import StepRecord

    return FinishedStep(outcome=StepRecord.model_validate(document["outcome"]), seconds=document["seconds"])
