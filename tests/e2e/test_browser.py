"""The pages in a real browser: they show what they should, say what failed, and nothing on them breaks."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.e2e.browser import CHROMIUM, Browser, Page
from tests.e2e.conftest import Served
from tests.worker.models import save_mlp

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"
)
PHONE = 390
LOADED = "document.readyState === 'complete' && !document.body.innerText.includes('Loading …')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    try:
        yield browser
    finally:
        browser.close()


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def model(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = save_mlp(
        tmp_path_factory.mktemp("models") / "a-model-with-a-rather-long-name-for-a-phone.onnx", width=64
    )
    return upload(client, "models", path)


@pytest.fixture(scope="module")
def data(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """`good`: labels that the model's outputs can learn; `beyond`: labels of classes that it does not have."""
    folder = tmp_path_factory.mktemp("datasets")
    x = np.random.default_rng(0).normal(size=(512, 64)).astype(np.float32)
    labels = x.argmax(axis=1)
    np.savez(folder / "good.npz", x=x, labels=labels)
    np.savez(folder / "beyond.npz", x=x, labels=labels + 1000)
    return {name: upload(client, "datasets", folder / f"{name}.npz") for name in ("good", "beyond")}


@pytest.fixture(scope="module")
def done(client: httpx.Client, model: str, data: dict[str, str]) -> dict[str, Any]:
    steps = [{"method": "prune_magnitude", "sparsity": 0.5}, {"method": "quantize_weights"}]
    job = submit(client, model, steps, data={"evaluation": data["good"]}, labels={"round": "first"})
    return finished(client, job["id"])


@pytest.fixture(scope="module")
def failed(client: httpx.Client, model: str, data: dict[str, str]) -> dict[str, Any]:
    job = submit(client, model, [{"method": "finetune", "epochs": 1}], data={"training": data["beyond"]})
    return finished(client, job["id"])


def upload(client: httpx.Client, kind: str, path: Path) -> str:
    with path.open("rb") as file:
        asset = client.post(f"/v1/{kind}", files={"file": (path.name, file)}).raise_for_status().json()
    while asset["state"] == "inspecting":
        time.sleep(0.05)
        asset = client.get(f"/v1/{kind}/{asset['id']}").raise_for_status().json()
    assert asset["state"] == "ready", asset["error"]
    return str(asset["id"])


def submit(client: httpx.Client, model: str, steps: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"model_id": model, "steps": steps, **more})
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def finished(client: httpx.Client, job_id: str) -> dict[str, Any]:
    return dict(client.get(f"/v1/jobs/{job_id}", params={"wait": 60}).raise_for_status().json())


@pytest.mark.parametrize(
    "path", ["/", "/jobs", "/jobs/{done}", "/jobs/{failed}", "/compare?job={done}", "/methods", "/docs"]
)
def test_every_page_fits_in_light_and_dark_and_nothing_on_it_fails(served, browser, done, failed, path):
    with browser.page(served.url + path.format(done=done["id"], failed=failed["id"])) as page:
        page.until("document.querySelector('.swagger-ui .opblock')" if path == "/docs" else LOADED)
        assert "Modelpress" in page.value("document.title")
        assert brightness(page, "backgroundColor") > 200 > 100 > brightness(page, "color")
        assert page.overflow() <= 0
        page.look(width=PHONE, dark=True)
        assert page.overflow() <= 0
        # Swagger UI has no dark colours of its own, so its page stays light.
        if path != "/docs":
            assert brightness(page, "backgroundColor") < 60 < 200 < brightness(page, "color")
        assert page.complaints == []


def brightness(page: Page, which: str) -> float:
    """Of the page's ink or paper, 0 to 255."""
    colour = page.value(f"getComputedStyle(document.body).{which}")
    return float(np.mean([int(part) for part in re.findall(r"\d+", colour)[:3]]))


def test_the_job_page_shows_figures_files_and_notes(served, browser, done):
    assert done["state"] == "succeeded", done["error"]
    with browser.page(f"{served.url}/jobs/{done['id']}") as page:
        page.until(LOADED)
        text = page.text()
        assert done["verdict"] in text
        assert "round: first" in text
        for title in ("Size", "Latency", "Output fidelity", "Zeros among the weights"):
            assert title in text
        for step in done["steps"]:
            assert step["method"] in text
        for note in [note for step in done["steps"] for note in step["notes"]] + done["measurements"][
            "notes"
        ]:
            assert note in text
        links = page.value(
            "[...document.querySelectorAll('.files a')].map((link) => [link.innerText, link.href])"
        )
        assert {"model.onnx", "report.html", "report.json", "recipe.json"} <= {name for name, _ in links}
        for _, address in links:
            assert httpx.get(address, trust_env=False).status_code == 200
        assert page.value("document.querySelectorAll('progress').length") == 0


def test_the_page_of_methods_shows_each_with_its_fields(served, browser, client):
    with browser.page(f"{served.url}/methods#prune_magnitude") as page:
        page.until(LOADED)
        for method in client.get("/v1/methods").json()["items"]:
            section = f"document.getElementById({json.dumps(method['name'])})"
            page.value(f"{section}.querySelector('details').open = true")
            shown = page.value(f"{section}.innerText")
            own = set(method["parameters"]["properties"]) - {"method", "layers"}
            assert method["title"] in shown
            assert own <= set(shown.split())


def test_a_failed_job_shows_its_problem_and_offers_another_try(served, browser, failed):
    assert failed["state"] == "failed"
    with browser.page(f"{served.url}/jobs/{failed['id']}") as page:
        page.until(LOADED)
        shown = page.value("document.querySelector('.problem').innerText")
        assert failed["error"]["message"] in shown
        assert (failed["error"]["hint"] or "") in shown
        assert "Try again" in page.text()


def test_a_job_that_is_not_there_is_called_so(served, browser):
    with browser.page(f"{served.url}/jobs/job_00000000000000000000000000") as page:
        assert "job" in page.until("document.querySelector('.problem')?.innerText")


@pytest.fixture
def training(client: httpx.Client, model: str, data: dict[str, str]) -> Iterator[str]:
    """A job that trains for longer than any test."""
    steps = [{"method": "finetune", "epochs": 10_000, "batch_size": 64}]
    job = submit(client, model, steps, data={"training": data["good"]})
    yield job["id"]
    client.post(f"/v1/jobs/{job['id']}/cancel")
    finished(client, job["id"])


def test_training_moves_on_the_page_and_its_button_cancels_it(served, browser, client, training):
    with browser.page(f"{served.url}/jobs/{training}") as page:
        words = "(document.querySelector('.progress-line')?.innerText ?? '')"
        first = page.until(f"/epoch .*loss .*validation accuracy .*left/.test({words}) && {words}")
        page.until(f"/epoch/.test({words}) && {words} !== {json.dumps(first)}")
        page.value(
            "[...document.querySelectorAll('button')].find((one) => one.innerText === 'Cancel').click()"
        )
        page.until("document.querySelector('.pill.cancelled') && !document.querySelector('progress')")
        assert page.complaints == []
    assert finished(client, training)["state"] == "cancelled"


def test_the_comparison_shows_each_job_beside_the_original(served, browser, done):
    with browser.page(f"{served.url}/compare?job={done['id']}") as page:
        page.until(LOADED)
        text = page.text()
        assert done["name"] in text
        assert done["verdict"] in text
        assert "original" in text


def test_picked_jobs_are_compared(served, browser, done):
    with browser.page(f"{served.url}/jobs") as page:
        page.until(LOADED)
        page.value("document.querySelector('input[type=checkbox]:not(:disabled)').click()")
        page.value(
            "[...document.querySelectorAll('button')].find((one) => one.innerText === 'Compare 1').click()"
        )
        page.until("location.pathname === '/compare' && document.querySelector('.figures')")
        assert page.complaints == []
