"""A client of the service's HTTP API, as a user would write it: upload, submit, wait, download."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

Answer = dict[str, Any]
DONE = {"succeeded", "failed", "cancelled", "expired"}


class Client:
    """Raises RuntimeError with what the service says where it refuses."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=600, trust_env=False)

    def upload(self, kind: str, file: Path) -> str:
        """A model or a dataset (`models`, `datasets`); its id, once the service has looked at it."""
        headers = {"Content-Type": "application/octet-stream"}
        with file.open("rb") as content:
            sent = self._http.post(
                f"/v1/{kind}", params={"filename": file.name}, content=content, headers=headers
            )
        found = _checked(sent)
        while found["state"] == "inspecting":
            found = _checked(self._http.get(f"/v1/{kind}/{found['id']}", params={"wait": 30}))
        if found["state"] != "ready":
            raise RuntimeError(f"{file.name}: {found}")
        return str(found["id"])

    def run(
        self, name: str, model: str, data: Mapping[str, str], steps: Sequence[Mapping[str, Any]]
    ) -> Answer:
        """A job, once it has succeeded."""
        request = {"name": name, "model_id": model, "data": dict(data), "steps": list(steps)}
        job = _checked(self._http.post("/v1/jobs", json=request))
        while job["state"] not in DONE:
            job = _checked(self._http.get(f"/v1/jobs/{job['id']}", params={"wait": 30}))
            print(f"   {job['percentage_done']:>3.0f}% {job['message']}", flush=True)
        if job["state"] != "succeeded":
            raise RuntimeError(f"the job {name!r} ended as {job['state']}: {job['error']}")
        return job

    def download(self, job: str, artifact: str, target: Path, *, form: str | None = None) -> Path:
        """One of the job's artifacts by its name; `form` is what `?as=` takes."""
        found = _checked(self._http.get(f"/v1/jobs/{job}/artifacts"))
        id = next(item["id"] for item in found["items"] if item["name"] == artifact)
        params = {"as": form} if form else {}
        with self._http.stream("GET", f"/v1/artifacts/{id}/content", params=params) as answer:
            answer.raise_for_status()
            with target.open("wb") as sink:
                for piece in answer.iter_bytes():
                    sink.write(piece)
        return target


def _checked(response: httpx.Response) -> Answer:
    if not response.is_success:
        raise RuntimeError(f"{response.request.url}: {response.status_code}: {response.text}")
    found: Answer = response.json()
    return found
