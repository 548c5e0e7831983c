"""torch.export programs over HTTP, with real workers: converted in the sandbox, worked on as ONNX."""

import hashlib
import json
import os
import socket

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.api.conftest import RAW
from tests.programs import CLASSES, Classifier, Decomposition, save_hostile, save_program


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory):
    return save_program(tmp_path_factory.mktemp("program") / "net.pt2")


def post(live, path):
    """The model once its inspection is over, or what the refusal says."""
    answer = live.post("/v1/models", files={"file": (path.name, path.read_bytes())})
    if answer.status_code == 202:
        answer = live.get(answer.headers["Location"], params={"wait": 60})
    return answer.json()


@pytest.fixture(scope="module")
def uploaded(live, program):
    model = post(live, program)
    assert model["state"] == "ready", model
    return model


def test_a_program_becomes_onnx(live, program, uploaded):
    summary = uploaded["summary"]
    assert summary["format"] == "pt2"
    assert "torch.onnx.export" in summary["conversion"]["tool"]
    assert [(value["name"], value["shape"][1:]) for value in summary["inputs"]] == [("image", [1, 8, 8])]
    assert [value["name"] for value in summary["outputs"]] == ["logits", "features"]
    batch = {value["shape"][0] for value in (*summary["inputs"], *summary["outputs"])}
    assert len(batch) == 1
    assert isinstance(batch.pop(), str), "the batch axis is dynamic"

    content = live.get(uploaded["links"]["onnx"]).content
    assert hashlib.sha256(content).hexdigest() == summary["conversion"]["sha256"]
    assert len(content) == summary["conversion"]["size_bytes"]
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    assert_same_outputs(session, image)
    assert b"tests/programs.py" not in content, "it tells of the machine that made it"

    assert live.get(uploaded["links"]["content"]).content == program.read_bytes()
    assert uploaded["sha256"] == hashlib.sha256(program.read_bytes()).hexdigest()
    assert post(live, program)["id"] == uploaded["id"]


def assert_same_outputs(session: onnxruntime.InferenceSession, image: np.ndarray) -> None:
    import torch

    with torch.no_grad():
        expected = Classifier().eval()(torch.from_numpy(image))
    found = dict(
        zip(["logits", "features"], session.run(["logits", "features"], {"image": image}), strict=True)
    )
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=1e-4, atol=1e-5)


def test_a_job_works_on_what_it_became(live, uploaded):
    request = {"model_id": uploaded["id"], "steps": [{"method": "prune_magnitude", "sparsity": 0.5}]}
    submitted = live.post("/v1/jobs", json=request)
    assert submitted.status_code == 202, submitted.text
    job = live.get(submitted.headers["Location"], params={"wait": 60}).json()
    assert job["state"] == "succeeded", job["error"]
    files = {item["name"]: item for item in live.get(job["links"]["artifacts"]).json()["items"]}
    made = onnx.load_from_string(live.get(files["model.onnx"]["links"]["content"]).content)
    assert made.graph.output[0].type.tensor_type.shape.dim[1].dim_value == CLASSES
    recipe = json.loads(live.get(files["recipe.json"]["links"]["content"]).content)
    assert recipe["made_with"]["model_sha256"] == uploaded["summary"]["conversion"]["sha256"]


def test_deleting_it_deletes_both(live, tmp_path):
    import torch

    model = post(live, save_program(tmp_path / "other.pt2", torch.nn.Linear(3, 5), (2, 3)))
    assert model["state"] == "ready", model
    hashes = {model["sha256"], model["summary"]["conversion"]["sha256"]}
    stored = {found.key.rpartition("/")[2] for found in live.services.store.list()}
    assert hashes <= stored
    assert live.delete(f"/v1/models/{model['id']}").status_code == 204
    assert not hashes & {found.key.rpartition("/")[2] for found in live.services.store.list()}


def test_one_that_onnx_cannot_say_is_refused_with_the_reason(live, tmp_path):
    refused = post(live, save_program(tmp_path / "eigen.pt2", Decomposition(), (2, 3, 3)))
    error = refused.get("error") or refused["errors"][0]
    assert error["code"] == "unsupported_model"
    assert "linalg_eigh" in error["message"]
    assert "torch.onnx.export" in error["hint"]


def test_a_damaged_one_is_refused(live, program, tmp_path):
    broken = save_hostile(tmp_path / "broken.pt2", program, "raise ValueError('broken')")
    refused = post(live, broken)
    error = refused.get("error") or refused["errors"][0]
    assert (error["code"], "broken" in error["message"]) == ("invalid_model", True)


REACH = """
import os, socket
def tried(act):
    try:
        act()
        return True
    except OSError:
        return False
found = [
    tried(lambda: open({canary!r}, 'w').close()),
    tried(lambda: open({canary!r}).close()),
    tried(lambda: socket.create_connection(('127.0.0.1', {port}), 1).close()),
    tried(lambda: os.kill({pid}, 0)),
    'MODELPRESS_DATA' in os.environ,
]
raise RuntimeError('it ran and reached ' + str(found))
"""
FORGE = """
import json, os
os.mkdir('converted')
os.write(3, json.dumps({"kind": "result", "result": {}}).encode() + b'\\n')
os._exit(0)
"""


def test_code_in_one_runs_in_the_sandbox_and_reaches_nothing(live, program, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = REACH.format(canary=str(tmp_path / "canary"), port=server.getsockname()[1], pid=os.getpid())
        refused = post(live, save_hostile(tmp_path / "hostile.pt2", program, code))
    error = refused.get("error") or refused["errors"][0]
    assert "it ran and reached [False, False, False, False, False]" in error["message"]
    assert not (tmp_path / "canary").exists()


def test_code_that_forges_the_answer_gains_nothing(live, program, tmp_path):
    refused = post(live, save_hostile(tmp_path / "forged.pt2", program, FORGE))
    error = refused.get("error") or refused["errors"][0]
    assert error["code"] == "bad_output"


@pytest.mark.parametrize(
    ("members", "word"),
    [
        (("m/code/__torch__.py", "m/constants.pkl", "m/data.pkl"), "TorchScript"),
        (("m/data.pkl", "m/data/0"), "checkpoint"),
        (("m/archive_format", "m/data/aotinductor/model/code.so"), "machine code"),
    ],
)
def test_other_torch_files_stay_refused(live, tmp_path, members, word):
    import zipfile

    path = tmp_path / "m.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        for name in members:
            archive.writestr(name, b"x")
    answer = live.post("/v1/models", content=path.read_bytes(), headers=RAW)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert word in error["message"]
    assert "torch.onnx.export" in error["hint"]
