"""`python -m api demo`: the main job on real input, through the public API, on a service of its own.

A small convolutional classifier learns scikit-learn's handwritten digits, goes in over HTTP, is compressed
by three jobs, and the comparison comes out as a table and as an HTML page.
"""

import tempfile
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from api.demo_model import make_demo_files
from api.embedded import Service, ServiceError

JOBS: tuple[tuple[str, list[dict[str, Any]]], ...] = (
    ("weight-only int8", [{"method": "quantize_weights"}]),
    ("static int8", [{"method": "quantize_static", "ranges": "minmax"}]),
    (
        "pruned 60%, static int8",
        [{"method": "prune_magnitude", "sparsity": 0.6}, {"method": "quantize_static", "ranges": "minmax"}],
    ),
)
SHOWN = (
    "size_bytes",
    "size_ratio",
    "sparsity",
    "macs",
    "latency_p50_ms",
    "speedup",
    "accuracy",
    "sqnr_db",
    "agreement",
)
"""Keys of the comparison's columns that the table shows."""


def run_demo(*, report: Path) -> int:
    """Run the demo; the HTML comparison goes to `report`. Returns the exit status."""
    console = Console()
    try:
        with tempfile.TemporaryDirectory(prefix="modelpress-demo-") as folder:
            work = Path(folder)
            console.print("[bold]1.[/] Training a small convolutional classifier on handwritten digits ...")
            accuracy = make_demo_files(work)
            console.print(f"   exported to ONNX; accuracy in torch on held-out digits: {accuracy:.1%}")
            console.print("[bold]2.[/] Starting the service (API, workers, Valkey, SQLite) ...")
            with Service(port=0, data=work / "service") as service:
                console.print(f"   {service.url}")
                with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
                    return _compress(client, work, report, console)
    except (ServiceError, httpx.HTTPError) as error:
        console.print(f"[red]modelpress: {error}[/]")
        return 1


def _compress(client: httpx.Client, work: Path, report: Path, console: Console) -> int:
    console.print("[bold]3.[/] Uploading the model and the data ...")
    model = _upload(client, "/v1/models", work / "digits.onnx")
    data = {
        "calibration": _upload(client, "/v1/datasets", work / "calibration.npz")["id"],
        "evaluation": _upload(client, "/v1/datasets", work / "evaluation.npz")["id"],
    }
    console.print(
        f"   {model['id']}: {model['summary']['parameters']:,} parameters, {model['size_bytes']:,} bytes"
    )
    console.print("[bold]4.[/] Running three jobs ...")
    jobs = [_submit(client, model["id"], data, name, steps) for name, steps in JOBS]
    finished = _follow(client, jobs, console)
    failed = [job for job in finished if job["state"] != "succeeded"]
    for job in failed:
        console.print(f"[red]{job['name']}: {job['state']}: {(job['error'] or {}).get('message', '')}[/]")
    if failed:
        return 1
    query = [("job", job["id"]) for job in finished]
    comparison = _checked(client.get("/v1/comparisons", params=query)).json()
    page = _checked(client.get("/v1/comparisons", params=[*query, ("format", "html")]))
    report.write_bytes(page.content)
    _show(comparison, console)
    console.print(f"The same as a page: {report}")
    return 0


def _upload(client: httpx.Client, path: str, file: Path) -> dict[str, Any]:
    with file.open("rb") as content:
        response = client.post(path, files={"file": (file.name, content)}, data={"name": file.stem})
    found: dict[str, Any] = _checked(response).json()
    while found["state"] == "inspecting":
        found = _checked(client.get(f"{path}/{found['id']}", params={"wait": 30})).json()
    return found


def _submit(
    client: httpx.Client, model: str, data: dict[str, str], name: str, steps: list[dict[str, Any]]
) -> dict[str, Any]:
    request = {"model_id": model, "name": name, "data": data, "steps": steps}
    job: dict[str, Any] = _checked(client.post("/v1/jobs", json=request)).json()
    return job


def _follow(client: httpx.Client, jobs: list[dict[str, Any]], console: Console) -> list[dict[str, Any]]:
    columns = (
        TextColumn("   {task.description:<26}"),
        BarColumn(30),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}"),
    )
    finished: dict[str, dict[str, Any]] = {}
    with Progress(*columns, console=console) as progress:
        bars = {job["id"]: progress.add_task(job["name"], total=100, message="queued") for job in jobs}
        while len(finished) < len(jobs):
            for job in jobs:
                if job["id"] not in finished:
                    now = _checked(client.get(f"/v1/jobs/{job['id']}", params={"wait": 0.3})).json()
                    _advance(progress, bars[job["id"]], now)
                    if now["state"] in {"succeeded", "failed", "cancelled", "expired"}:
                        finished[job["id"]] = now
    return [finished[job["id"]] for job in jobs]


def _advance(progress: Progress, bar: TaskID, job: dict[str, Any]) -> None:
    message = job["message"] if job["state"] == "running" else job["state"]
    progress.update(bar, completed=job["percentage_done"], message=message)


def _show(comparison: dict[str, Any], console: Console) -> None:
    """One column for each model, so that the table fits a narrow terminal; the verdicts below."""
    rows = comparison["rows"]
    titles = {column["key"]: column["title"] for column in comparison["columns"]}
    table = Table(title="Measured side by side on 599 held-out digits")
    table.add_column("")
    for row in rows:
        table.add_column(row["name"], justify="right", max_width=15)
    for key in SHOWN:
        table.add_row(titles[key], *(row["text"][key] for row in rows))
    console.print(table)
    for row in rows[1:]:
        console.print(f"   [bold]{row['name']}[/]: {row['verdict']}")


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        problem = response.json() if "json" in response.headers.get("content-type", "") else {}
        detail = problem.get("detail") or response.text[:300]
        asked = f"{response.request.method} {response.request.url.path}"
        raise httpx.HTTPStatusError(
            f"{asked} answered {response.status_code}: {detail}", request=response.request, response=response
        )
    return response
