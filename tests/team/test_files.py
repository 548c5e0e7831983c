"""Dockerfile, docker-compose.yml and .env.example agree with each other and with the code."""

import re
from pathlib import Path

import pytest

from db.queue import QUEUES
from db.settings import Settings
from tests.team.deployment import COMPOSE, ROOT, VARIABLE, compose
from tests.team.image import last, stages

SECRETS = {"POSTGRES_PASSWORD": "pw", "S3_ACCESS_KEY": "access", "S3_SECRET_KEY": "secret"}
OURS = {"api", "worker-cpu", "worker-inspections", "worker-gpu", "migrate"}
WORKERS = {"worker-cpu", "worker-inspections", "worker-gpu"}
SERVICES = compose(SECRETS)["services"]


def test_every_service_of_the_team_is_there() -> None:
    assert set(SERVICES) == OURS | {"postgres", "redis", "s3"}
    assert {SERVICES[name]["command"][4] for name in WORKERS} == set(QUEUES)
    assert SERVICES["worker-gpu"]["profiles"] == ["gpu"]
    reserved = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


@pytest.mark.parametrize("missing", SECRETS)
def test_no_secret_has_a_default(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        compose({name: value for name, value in SECRETS.items() if name != missing})


def test_secrets_are_in_no_file() -> None:
    for name, value in SECRETS.items():
        assert f"${{{name}:?" in COMPOSE.read_text()
        assert re.search(rf"^{name}=$", (ROOT / ".env.example").read_text(), re.MULTILINE), value
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_the_example_of_env_names_every_variable() -> None:
    used = {found["name"] for found in VARIABLE.finditer(COMPOSE.read_text())}
    shown = set(re.findall(r"^#?(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert shown == used


def test_every_variable_of_ours_is_a_setting() -> None:
    known = {f"MODELPRESS_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        given = {key for key in SERVICES[name]["environment"] if key.startswith("MODELPRESS_")}
        assert given <= known
        assert {"MODELPRESS_DATABASE_URL", "MODELPRESS_BROKER_URL", "MODELPRESS_STORAGE_URL"} <= given


def test_the_broker_loses_and_evicts_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command


def test_everything_that_is_kept_lies_in_a_volume() -> None:
    named = {volume.split(":")[0] for name in SERVICES for volume in SERVICES[name].get("volumes", ())}
    assert {"postgres", "redis", "s3", "uploads"} <= named
    assert set(compose(SECRETS)["volumes"]) == named - {"/data"}
    assert all("/data" in str(SERVICES[name]["volumes"]) for name in {"api", *WORKERS})


def test_services_start_again_and_in_order() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
        for other, how in service.get("depends_on", {}).items():
            done = how["condition"] == "service_completed_successfully"
            assert done == (other == "migrate")
            assert done or "test" in SERVICES[other]["healthcheck"]


def test_nothing_of_ours_runs_with_more_rights_than_it_needs() -> None:
    assert last("USER").value == "modelpress"
    for name in OURS:
        service = SERVICES[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        loosened = [option for option in service["security_opt"] if option.endswith("unconfined")]
        assert bool(loosened) == (name in WORKERS)
    assert not any("privileged" in service or "cap_add" in service for service in SERVICES.values())


def test_only_the_api_listens_outside_and_by_default_on_loopback() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["api"]
    assert SERVICES["api"]["ports"] == ["127.0.0.1:8000:8000"]


def test_a_worker_has_the_time_to_give_its_job_back() -> None:
    grace = float(SERVICES["worker-cpu"]["stop_grace_period"].removesuffix("s"))
    assert grace >= Settings(data=Path("/data")).cancel_grace_s + 10


def test_a_worker_has_room_for_the_largest_job() -> None:
    limit = SERVICES["worker-cpu"]["deploy"]["resources"]["limits"]["memory"]
    assert int(limit.removesuffix("g")) * 2**30 > Settings(data=Path("/data")).job_memory_bytes


def test_the_image_runs_the_api_by_default() -> None:
    assert last("CMD").words == SERVICES["api"]["command"]
    assert last("STOPSIGNAL").value == "SIGTERM"
    assert "bubblewrap" in " ".join(instruction.value for instruction in stages()[-1])


def test_code_comes_after_the_dependencies() -> None:
    """Or every change of a line would install PyTorch again."""
    dependencies, code, final = stages()
    copied = [instruction.value for instruction in dependencies if instruction.name == "COPY"]
    assert copied == ["pyproject.toml constraints.txt ./"]
    names = [instruction.value.split()[0] for instruction in code if instruction.name == "COPY"]
    assert {"api", "worker", "compression", "db"} <= set(names)
    sources = [instruction.value for instruction in final if instruction.name == "COPY"]
    assert [source.split()[0] for source in sources] == ["--from=dependencies", "--from=code"]


def test_what_the_image_copies_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert ignored[0] == "*"
    copies = [i.value for stage in stages() for i in stage if i.name == "COPY" and "--from" not in i.value]
    for source in {word for copy in copies for word in copy.split()[:-1]}:
        assert source in allowed
        assert (ROOT / source).exists()
