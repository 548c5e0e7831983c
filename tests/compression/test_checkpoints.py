"""Files that replace each other whole, and runs that go on from one."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from compression.checkpoints import FolderCheckpoints, NoCheckpoints
from compression.errors import NotApplicable
from compression.job import CheckpointSaved, Event, FinishedStep, Job, StepFinished
from compression.method import StepContext, StepOutcome
from compression.methods.optimize_graph import OptimizeGraph
from compression.pipeline import run
from compression.spec import CompressionSpec
from tests.compression.models import small_model


def writes(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def test_the_last_saved_file_is_loaded(tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    earlier.write_text("earlier")
    announced: list[Path] = []
    checkpoints = FolderCheckpoints(tmp_path / "now", announced.append, saved=earlier)
    assert checkpoints.load() == earlier
    for text in ("a", "b", "c"):
        checkpoints.save(writes(text))
        assert announced[-1].read_text() == text
        assert checkpoints.load() == announced[-1]
    assert len(set(announced)) == 3, "a file that was announced is never written again"
    assert sorted(path.read_text() for path in (tmp_path / "now").iterdir()) == ["b", "c"]


def test_a_failed_save_leaves_what_was_saved(tmp_path: Path) -> None:
    announced: list[Path] = []
    checkpoints = FolderCheckpoints(tmp_path, announced.append)
    checkpoints.save(writes("whole"))

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError

    with pytest.raises(OSError):
        checkpoints.save(fail)
    (path,) = announced
    assert checkpoints.load() == path
    assert path.read_text() == "whole"


def test_the_next_is_due_after_the_interval(tmp_path: Path) -> None:
    assert FolderCheckpoints(tmp_path, every_s=0.0).due()
    assert not FolderCheckpoints(tmp_path, every_s=60.0).due()


def test_nothing_is_kept_where_nobody_would_take_it_up(tmp_path: Path) -> None:
    checkpoints = NoCheckpoints()
    checkpoints.save(writes("x"))
    assert checkpoints.load() is None
    assert not checkpoints.due()


def interrupted(self: OptimizeGraph, model: Any, context: StepContext) -> StepOutcome:
    assert context.checkpoints.load() is None
    assert context.checkpoints.due()
    context.checkpoints.save(writes("halfway"))
    raise NotApplicable("not today")


def resumed(self: OptimizeGraph, model: Any, context: StepContext) -> StepOutcome:
    saved = context.checkpoints.load()
    text = "nothing" if saved is None else saved.read_text()
    return StepOutcome(model=model, layers=(), notes=(text,))


def test_a_run_goes_on_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps after it begin as ever, and nothing of it stays."""
    steps = [{"method": "prune_magnitude", "sparsity": 0.5}, {"method": "optimize_graph"}] * 2
    spec = CompressionSpec.model_validate({"steps": steps, "evaluation": {"latency": {"runs": 5}}})
    first = Job(
        spec=spec,
        model=small_model(tmp_path / "m"),
        folder=tmp_path / "job",
        threads=1,
        checkpoint_every_s=0.0,
    )
    heard: list[Event] = []
    monkeypatch.setattr(OptimizeGraph, "apply", interrupted)
    with pytest.raises(NotApplicable):
        run(first, heard.append, nullcontext)
    (saved,) = [event for event in heard if isinstance(event, CheckpointSaved)]
    (done,) = [event for event in heard if isinstance(event, StepFinished)]
    assert (saved.index, (first.folder / saved.file).read_text()) == (1, "halfway")

    monkeypatch.setattr(OptimizeGraph, "apply", resumed)
    second = Job(
        spec=spec,
        model=first.model,
        folder=first.folder,
        threads=1,
        finished=(FinishedStep(outcome=done.outcome),),
        checkpoint=first.folder / saved.file,
    )
    heard.clear()
    run(second, heard.append, nullcontext)
    notes = {event.index: event.outcome.notes for event in heard if isinstance(event, StepFinished)}
    assert (notes[1], notes[3]) == (("halfway",), ("nothing",))
    assert not (first.folder / saved.file).exists()
