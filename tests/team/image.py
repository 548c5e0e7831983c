"""Reads the Dockerfile: its instructions, and what they say about the image."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Instruction:
    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """Of the JSON form."""
        found: list[str] = json.loads(self.value[self.value.index("[") :])
        return found


def stages() -> list[list[Instruction]]:
    """The instructions of each stage, its FROM first; the ARGs before the first FROM are left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    found: list[list[Instruction]] = []
    for line in lines:
        name, _, value = line.partition(" ")
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append(Instruction(name, value.strip()))
    return found


def last(name: str) -> Instruction:
    """Of the final stage, the one that counts."""
    return [instruction for instruction in stages()[-1] if instruction.name == name][-1]
