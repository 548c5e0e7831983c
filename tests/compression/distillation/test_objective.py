"""The sum of losses on real graphs: what a student is held to, part by part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compression.distillation.goals import Counterparts, Goals
from compression.distillation.gradients import GRADIENT, TeacherGradients, score
from compression.distillation.losses import hard_labels
from compression.distillation.objective import distillation_loss
from compression.distillation.readings import Reading
from compression.distillation.teacher import Teacher
from compression.graph import load
from compression.graph.trainable import TrainableGraph
from compression.method import StepContext
from tests.compression.distillation.networks import convolutional_network, digits

PIXELS, LABELS = digits()
FEEDS = {"image": PIXELS[:24].reshape(-1, 1, 8, 8)}
LOGITS = {"logits": Reading(kind="classes")}
EVERYTHING = Goals(
    student=LOGITS,
    teacher=LOGITS,
    soft=1.0,
    hard=1.0,
    features=1.0,
    hints=(Counterparts(student="relu2:out", teacher="relu2:out", student_axis=1, teacher_axis=1),),
    attention=1.0,
    maps=(Counterparts(student="relu1:out", teacher="relu1:out", student_axis=1, teacher_axis=1),),
    distance=1.0,
    angle=1.0,
    related=Counterparts(student="relu3:out", teacher="relu3:out", student_axis=1, teacher_axis=1),
    gradients=1.0,
    differentiated=("image",),
)


@pytest.fixture
def answers(tmp_path: Path) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    context = StepContext(
        workdir=tmp_path, data={}, device="cpu", threads=1, seed=0, report=lambda fraction, message: None
    )
    model = load(convolutional_network(tmp_path / "teacher.onnx", seed=1))
    gradients = TeacherGradients(TrainableGraph(model), LOGITS, ("image",))
    teacher = Teacher(model, EVERYTHING.asked, context, gradients=gradients)
    return {name: torch.from_numpy(array) for name, array in teacher.compute(FEEDS, 20).items()}


def on_labels(found: dict[str, torch.Tensor]) -> torch.Tensor:
    return hard_labels(found["logits"], torch.tensor(LABELS[:20]), LOGITS["logits"])


def student(tmp_path: Path, seed: int) -> TrainableGraph:
    return TrainableGraph(load(convolutional_network(tmp_path / "student.onnx", seed=seed)))


def test_the_teacher_itself_has_nothing_to_learn(tmp_path: Path, answers: dict[str, torch.Tensor]) -> None:
    """Filling rows, beyond the twenty samples, count for nothing."""
    feeds = {name: torch.from_numpy(array) for name, array in FEEDS.items()}
    _, parts = distillation_loss(EVERYTHING, student(tmp_path, 1), feeds, answers, on_labels)
    assert parts.keys() == {
        *("soft labels", "hard labels", "features", "attention maps", "distances", "angles"),
        "input gradients",
    }
    for name, part in parts.items():
        assert (float(part) > 0.1) if name == "hard labels" else (abs(float(part)) < 1e-6), name


@pytest.mark.parametrize("only", ["soft", "hard", "features", "attention", "distance", "angle", "gradients"])
def test_every_loss_can_be_learned(tmp_path: Path, answers: dict[str, torch.Tensor], only: str) -> None:
    """Thirty steps of Adam bring each loss below 60% of what it was."""
    weights = ("soft", "hard", "features", "attention", "distance", "angle", "gradients")
    goals = replace(EVERYTHING, **{name: float(name == only) for name in weights})
    view = student(tmp_path, 2).train()
    feeds = {name: torch.from_numpy(array) for name, array in FEEDS.items()}
    optimizer = torch.optim.Adam(view.parameters(), lr=0.01)
    seen = []
    for _ in range(30):
        optimizer.zero_grad()
        total, parts = distillation_loss(goals, view, feeds, answers, on_labels)
        assert len(parts) == 1
        total.backward()
        optimizer.step()
        seen.append(float(total.detach()))
    assert seen[-1] < 0.6 * seen[0]


def test_gradients_of_the_score(tmp_path: Path, answers: dict[str, torch.Tensor]) -> None:
    """The teacher's input gradient against central differences of its chosen logit."""
    view = student(tmp_path, 1).double()
    image = torch.from_numpy(FEEDS["image"][:1]).double()
    with torch.no_grad():
        decided = view({"image": image})

        def at(offset: float) -> float:
            moved = image.clone()
            moved[0, 0, 3, 4] += offset
            return float(score(view({"image": moved}), LOGITS, decided))

        slope = (at(1e-4) - at(-1e-4)) / 2e-4
    np.testing.assert_allclose(float(answers[GRADIENT + "image"][0, 0, 3, 4]), slope, rtol=1e-3, atol=1e-5)
