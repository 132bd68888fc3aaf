"""A headless Chromium, spoken to over two pipes (the Chrome DevTools Protocol); no driver, no package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_PATIENCE = 60.0  # seconds that the browser may live


@dataclass
class Browser:
    """One tab.

    Attributes:
        commands: where commands go, each ended by a zero byte.
        answers: where answers and events come from.
        session: of the tab.
        complaints: what the console and the log said, of whatever gravity.
        requests: addresses that were asked for, but for the page itself.
    """

    commands: int
    answers: int
    session: str = ""
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _number: int = 0
    _read: bytes = b""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever JSON can say
        """Send a command and wait for its answer; events on the way are noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def wait_for(self, event: str) -> None:
        """Until something happens."""
        while self._next().get("method") != event:
            pass

    def open(self, page: Path, *, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """Show a file on a screen of this size, in CSS pixels, of somebody who prefers this colour scheme."""
        self.complaints.clear()
        self.requests.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.as_uri())
        self.wait_for("Page.loadEventFired")

    def run(self, script: str) -> Any:  # noqa: ANN401 - whatever JavaScript gives
        """The value of an expression on the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """A key of the keyboard, down and up."""
        for kind in ("keyDown", "keyUp"):
            codes = {"Tab": 9, "Enter": 13, " ": 32}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                text=text if kind == "keyDown" else "",
                windowsVirtualKeyCode=codes.get(key, 0),
            )

    def pdf(self) -> bytes:
        """The page as it prints, on A4."""
        made = self.call("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(made["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            piece = os.read(self.answers, 1 << 16)
            assert piece, "the browser went away"
            self._read += piece
        line, _, self._read = self._read.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, told: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled":
            self.complaints.append(str(told["args"]))
        elif event == "Log.entryAdded":
            self.complaints.append(told["entry"]["text"])
        elif event == "Network.requestWillBeSent" and told["type"] != "Document":
            self.requests.append(told["request"]["url"])


def find() -> str:
    """The program.

    Raises:
        LookupError: there is none.
    """
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise LookupError(f"no browser: {', '.join(_NAMES)}")
    return found


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with one tab; it ends with the context."""
    ours, theirs = os.pipe(), os.pipe()  # commands, answers

    def arrange() -> None:
        # The browser reads from 3 and writes to 4. A copy first: one of the ends may be 3 or 4 itself.
        read, write = os.dup(ours[0]), os.dup(theirs[1])
        os.dup2(read, 3)
        os.dup2(write, 4)

    process = subprocess.Popen(
        [
            find(),
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-sandbox",  # which the user of a container may not have
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            "about:blank",
        ],
        close_fds=False,
        preexec_fn=arrange,  # noqa: PLW1509 - no threads here, and no other way to choose the numbers
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(ours[0])
    os.close(theirs[1])
    try:
        browser = Browser(ours[1], theirs[0])
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.call(f"{domain}.enable")
        yield browser
    finally:
        os.close(ours[1])
        os.close(theirs[0])
        process.terminate()
        process.wait(_PATIENCE)
