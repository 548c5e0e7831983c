"""The service against its own document: schemathesis finds no 5xx and no answer that is not described.

All of its checks, on the examples and boundary cases of every operation; the slow run adds random ones, and
calls in sequence. Bytes that fit the schema need not be a model, and steps that fit it may contradict each other, so
422 is a good answer to uploads and jobs. For more: `schemathesis run http://127.0.0.1:8000/openapi.json`.
"""

import subprocess
import sysconfig
from pathlib import Path

import httpx
import pytest

CONFIGURATION = """
[parameters]
"query.wait" = 0

[[operations]]
include-operation-id = ["upload_model", "upload_dataset", "submit_job"]

[operations.checks.positive_data_acceptance]
expected-statuses = ["2xx", "403", "404", "409", "422"]
"""


@pytest.mark.timeout(240)
def test_every_answer_is_described(client, model, dataset, tmp_path):
    check(client, model, tmp_path, {"--phases": "examples,coverage", "--max-time": "20"})


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_answer_is_described_in_sequences_too(client, model, dataset, tmp_path):
    check(client, model, tmp_path, {"--max-time": "120"})


def check(client: httpx.Client, model: str, folder: Path, options: dict[str, str]) -> None:
    job = {"model_id": model, "steps": [{"method": "quantize_weights"}]}
    assert client.post("/v1/jobs", json=job).status_code == 202

    done = subprocess.run(
        _command(str(client.base_url), folder, options),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def _command(url: str, folder: Path, more: dict[str, str]) -> list[str]:
    configuration = folder / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    options = {
        "--checks": "all",
        "--max-examples": "5",
        "--seed": "1",
        "--request-timeout": "20",
        "--generation-database": "none",
        "--warnings": "off",
        **more,
    }
    program = Path(sysconfig.get_path("scripts")) / "schemathesis"
    flat = [part for option in options.items() for part in option]
    return [
        str(program),
        "--config-file",
        str(configuration),
        "run",
        f"{url}/openapi.json",
        "--url",
        url,
        "--continue-on-failure",
        *flat,
    ]
