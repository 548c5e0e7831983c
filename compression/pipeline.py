"""Runs the steps of a spec on a model, one after the other, and measures what came out."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from compression.job import Event, FinishedStep, Job, OutputFile, Result, StepRecord

__all__ = ["Event", "FinishedStep", "Job", "OutputFile", "Result", "StepRecord", "run"]


def run(
    job: Job, listener: Callable[[Event], None], timing: Callable[[], AbstractContextManager[None]]
) -> Result:
    raise NotImplementedError
