"""Which losses a student is held to, where, and how much each counts."""

from collections.abc import Mapping
from dataclasses import dataclass

from compression.distillation.readings import Reading


@dataclass(frozen=True, kw_only=True)
class Counterparts:
    """A value of the student's and the one of the teacher's that it is held to, with their channels' axes."""

    student: str
    teacher: str
    student_axis: int
    teacher_axis: int


@dataclass(frozen=True, kw_only=True)
class Goals:
    """Which losses count and how much. A weight of zero leaves a loss out."""

    student: Mapping[str, Reading]
    """How the student's outputs are read."""
    teacher: Mapping[str, Reading]
    temperature: float = 4.0
    soft: float = 1.0
    hard: float = 0.0
    features: float = 0.0
    hints: tuple[Counterparts, ...] = ()
    attention: float = 0.0
    maps: tuple[Counterparts, ...] = ()
    distance: float = 0.0
    angle: float = 0.0
    related: Counterparts | None = None
    """Where samples are related; None stands for the first output."""
    gradients: float = 0.0
    differentiated: tuple[str, ...] = ()
    """Inputs with respect to which gradients are compared."""

    @property
    def taps(self) -> tuple[str, ...]:
        """The student's values in between that are compared."""
        return tuple(dict.fromkeys(two.student for two in self._inside if two.student not in self.student))

    @property
    def asked(self) -> tuple[str, ...]:
        """What the teacher answers with: outputs, then values in between."""
        return tuple(dict.fromkeys((*self.teacher, *(two.teacher for two in self._inside))))

    @property
    def _inside(self) -> tuple[Counterparts, ...]:
        return (*self.hints, *self.maps, *((self.related,) if self.related is not None else ()))
