"""Chromium without a window, driven over the DevTools protocol through a pipe: no port and no package is needed."""

import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_S = 90.0
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-breakpad",
    ),
    *("--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
    "--remote-debugging-pipe",
)


class Browser:
    """One process with its children, all in one process group, which ends with `close`."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        ours, theirs = os.pipe(), os.pipe()
        self._write, self._read = ours[1], theirs[0]
        self._text = b""
        self._number = 0
        self._pages: dict[str, Page] = {}
        with (profile / "chromium.log").open("wb") as log:
            self.pid = _spawn(
                [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"], ours[0], theirs[1], log.fileno()
            )
        os.close(ours[0])
        os.close(theirs[1])

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its answer; events that come meanwhile go to their pages."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        os.write(
            self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0"
        )
        while (answer := self._next()).get("id") != self._number:
            if answer.get("sessionId") in self._pages:
                self._pages[answer["sessionId"]].hear(answer["method"], answer["params"])
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._text:
            ready, _, _ = select.select([self._read], [], [], PATIENCE_S)
            part = os.read(self._read, 1 << 20) if ready else b""
            assert part, "the browser does not answer"
            self._text += part
        message, _, self._text = self._text.partition(b"\0")
        return dict(json.loads(message))

    @contextmanager
    def page(self, url: str) -> Iterator["Page"]:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.look(width=1200, dark=False)
        page.call("Page.navigate", url=url)
        try:
            yield page
        finally:
            self.call("Target.closeTarget", targetId=target)
            del self._pages[session]

    def close(self) -> None:
        with suppress(AssertionError, OSError):
            self.call("Browser.close")
        os.close(self._write)
        os.close(self._read)
        deadline = time.monotonic() + 5
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.05)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


@dataclass
class Page:
    browser: Browser
    session: str
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings on the console, and requests that failed."""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **parameters)

    def hear(self, method: str, event: dict[str, Any]) -> None:
        match method:
            case "Runtime.exceptionThrown":
                self.complaints.append(str(event["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if event["type"] in ("error", "warning", "assert"):
                self.complaints.append(str(event["args"]))
            case "Log.entryAdded" if event["entry"]["level"] in ("error", "warning"):
                self.complaints.append(str(event["entry"]))
            case "Network.loadingFailed" if not event.get("canceled"):
                self.complaints.append(str(event))
            case "Network.responseReceived" if event["response"]["status"] >= 400:
                self.complaints.append(f"{event['response']['status']} {event['response']['url']}")

    def look(self, *, width: int, dark: bool) -> None:
        """As a screen of this width, in CSS pixels, and with this colour scheme; the page is not loaded anew."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, script: str) -> Any:
        """What a script comes to, as JSON."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self) -> str:
        return str(self.value("document.body?.innerText ?? ''"))

    def until(self, script: str) -> Any:
        """Waits for a script to come to something that counts as true: its text, or just true."""
        told = f"((found) => typeof found === 'string' ? found : Boolean(found))({script})"
        deadline = time.monotonic() + PATIENCE_S
        while not (found := self.value(told)):
            assert time.monotonic() < deadline, f"never came: {script}\n{self.text()}\n{self.complaints}"
            time.sleep(0.05)
        return found

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.value("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def _spawn(command: list[str], read: int, write: int, log: int) -> int:
    """The browser reads its descriptor 3 and writes its 4, in a process group of its own."""
    # Copies above 9 cannot be what 3 and 4 are copied over.
    sources = [
        (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10), to)
        for fd, to in ((read, 3), (write, 4), (log, 1), (log, 2))
    ]
    actions = [(os.POSIX_SPAWN_DUP2, source, to) for source, to in sources]
    try:
        return os.posix_spawn(command[0], command, os.environ, file_actions=actions, setpgroup=0)
    finally:
        for source, _ in sources:
            os.close(source)
