"""Sizes of axes that may not be known: a number times names, such as 4 * batch * frames."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce


@dataclass(frozen=True)
class Size:
    """A whole number times unknown positive sizes, each under a name; equal names are equal sizes."""

    number: int
    names: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        return not self.names

    def __mul__(self, other: "Size") -> "Size":
        return Size(self.number * other.number, tuple(sorted(self.names + other.names)))

    def over(self, other: "Size") -> "Size | None":
        """The exact quotient; None where there is none, or it cannot be told."""
        left = Counter(self.names)
        left.subtract(other.names)
        if other.number == 0 or self.number % other.number or min(left.values(), default=0) < 0:
            return None
        return Size(self.number // other.number, tuple(sorted(left.elements())))

    def __str__(self) -> str:
        return " * ".join([*([str(self.number)] if self.number != 1 or not self.names else []), *self.names])


ONE = Size(1)


def product(sizes: Iterable[Size]) -> Size:
    return reduce(Size.__mul__, sizes, ONE)
