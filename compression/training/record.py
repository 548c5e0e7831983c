"""What a training tells when it has ended."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(kw_only=True)
class Epoch:
    """One pass: mean training loss, then loss and metric on the validation split where there is one."""

    number: int
    loss: float | None
    validation_loss: float | None = None
    metric: float | None = None

    def is_better_than(self, other: "Epoch | None") -> bool:
        """By the metric, then by the validation loss. What is not finite is never better."""
        if self.validation_loss is None or not math.isfinite(self.validation_loss):
            return False
        if other is None or other.validation_loss is None or not math.isfinite(other.validation_loss):
            return True
        return self._key() > other._key()

    def _key(self) -> tuple[float, float]:
        return (self.metric or 0.0, -(self.validation_loss or 0.0))


@dataclass(kw_only=True)
class TrainingRecord:
    """Epoch 0 is the model as it came, measured on the validation split."""

    epochs: list[Epoch] = field(default_factory=list)
    steps: int = 0
    best_epoch: int | None = None
    """Whose weights are kept; None where the last ones are."""
    stopped_early: bool = False
    diverged: bool = False
    seconds: float = 0.0
    metric: str | None = None
    """What `metric` of the epochs is."""

    @property
    def best(self) -> Epoch | None:
        return next((epoch for epoch in self.epochs if epoch.number == self.best_epoch), None)

    def as_details(self) -> dict[str, Any]:
        """For report.json: numbers that JSON has."""
        plain = asdict(self)
        for epoch in plain["epochs"]:
            for name, value in epoch.items():
                if isinstance(value, float):
                    epoch[name] = round(value, 6) if math.isfinite(value) else None
        plain["seconds"] = round(self.seconds, 2)
        return plain

    @classmethod
    def of(cls, plain: dict[str, Any]) -> "TrainingRecord":
        """Back from `asdict`."""
        return cls(**{**plain, "epochs": [Epoch(**epoch) for epoch in plain["epochs"]]})

    def words(self) -> str:
        """For the report."""
        done = sum(epoch.number > 0 for epoch in self.epochs)
        parts = [
            f"{done} epoch{'' if done == 1 else 's'}, {self.steps:,} step{'' if self.steps == 1 else 's'}"
        ]
        if self.stopped_early:
            parts.append("stopped early")
        if self.diverged:
            parts.append("ended where the loss was no longer finite")
        start, best = self.epochs[0] if self.epochs else None, self.best
        if best is not None and start is not None:
            parts.append(
                f"best on the validation split after epoch {best.number}: {_moved(self, start, best)}"
            )
        return "; ".join(parts)


def _moved(record: TrainingRecord, start: Epoch, best: Epoch) -> str:
    if record.metric and best.metric is not None and start.metric is not None and start.number == 0:
        return f"{record.metric} {start.metric:.4f} -> {best.metric:.4f}"
    if record.metric and best.metric is not None:
        return f"{record.metric} {best.metric:.4f}"
    return f"loss {best.validation_loss:.4g}"
