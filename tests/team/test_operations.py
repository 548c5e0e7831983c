"""What docs/operations.md says is so: every setting with its default, and commands that exist."""

import re
import shlex

import pytest
from pydantic_core import PydanticUndefined

from api.__main__ import main
from db.settings import GIB, Settings
from tests.team.deployment import ROOT
from tests.team.test_files import SERVICES

PAGE = (ROOT / "docs" / "operations.md").read_text()
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ") for block in BLOCKS for line in block.splitlines() if line.startswith("$ ")
]
DOCKER = ("exec", "run", "up", "logs", "stop", "build", "pull", "down")


def settings_table() -> str:
    lines = ["| variable | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.default is not PydanticUndefined
        lines.append(f"| `MODELPRESS_{name.upper()}` | {_shown(name, field.default)} | {field.description} |")
    return "\n".join(lines)


def _shown(name: str, value: object) -> str:
    if value in {None, ""}:
        return "–"
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{value // GIB} GiB"
    if name.endswith("_s") and isinstance(value, int | float) and value >= 3600:
        return f"{value / 3600:g} h"
    return f"{value:g} s" if name.endswith("_s") and isinstance(value, int | float) else f"`{value}`"


def test_every_setting_is_listed_as_it_is() -> None:
    assert settings_table() in PAGE, f"docs/operations.md should hold:\n{settings_table()}"


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("docker compose")])
def test_compose_commands_name_services_that_exist(command: str) -> None:
    words = shlex.split(re.split(r"[|<>]", command)[0])[2:]
    action = next(index for index, word in enumerate(words) if word in DOCKER)
    rest = [word for word in words[action + 1 :] if not word.startswith("-")]
    if words[action] in {"exec", "run"}:
        assert rest[0] in SERVICES
    else:
        assert {word.split("=")[0] for word in rest} <= set(SERVICES)


@pytest.mark.parametrize("command", [line for line in COMMANDS if "python -m api" in line])
def test_our_commands_have_these_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command.split(" python -m api ")[1])
    options = [word for word in words if word.startswith("--")]
    with pytest.raises(SystemExit):
        main([*[word for word in words[:2] if not word.startswith("-")], "--help"])
    shown = capsys.readouterr().out
    assert all(option in shown for option in options), shown
