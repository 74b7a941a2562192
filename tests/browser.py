"""A headless Chromium, driven through the pipe of its DevTools protocol: no package is needed for that."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_START = """
import fcntl, os, sys
# Chromium reads commands from descriptor 3 and writes what it says to 4.
read, write = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
LONG_S = 30.0  # only reached when the code under test hangs


def find_browser() -> str | None:
    """The browser of this machine; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a browser of its own.

    Args:
        program: from ``find_browser``.
        profile: an empty folder.
        width: of the page in CSS pixels.
        height: likewise.
        scheme: "light" or "dark".

    Attributes:
        requests: every address that the page has asked for.
        complaints: what the browser said in its console: violations of the security policy among it.
    """

    def __init__(
        self, program: str, profile: Path, *, width: int = 1280, height: int = 800, scheme: str = "light"
    ) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        read, self._to = os.pipe()
        self._from, write = os.pipe()
        starter = [sys.executable, "-S", "-c", _START, str(read), str(write)]
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            [*starter, program, *options, "about:blank"],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._buffer = b""
        self._number = 0
        self._session = ""
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height, scheme)

    def resize(self, width: int, height: int, scheme: str) -> None:
        """Another size, or the other colors."""
        self.call(
            *("Emulation.setDeviceMetricsOverride",),
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url: str) -> None:
        """Go to an address, and wait until the page is there."""
        self.call("Page.navigate", url=url)
        self.wait("location.href !== 'about:blank' && document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page; it may be a promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, good: Callable[[Any], bool] = bool) -> Any:
        """The value of an expression as soon as it is good. While the page is another one, it may fail."""
        until_s = time.monotonic() + LONG_S
        while True:
            try:
                value = self.evaluate(script)
            except AssertionError as error:
                value = error
            else:
                if good(value):
                    return value
            assert time.monotonic() < until_s, f"{script} stays {value!r}; the console says {self.complaints}"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """Press a key and let it go."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "p": 80}
        facts = {"key": key, "code": {"p": "KeyP", " ": "Space"}.get(key, key), "windowsVirtualKeyCode": codes[key]}
        text = {"Enter": "\r", " ": " ", "p": "p"}.get(key, "")
        self.call("Input.dispatchKeyEvent", type="keyDown", **facts, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **facts)

    def type(self, text: str) -> None:
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Write the page as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def call(self, method: str, **parameters: Any) -> Any:
        """One command of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            said = self._next()
            if said.get("id") == self._number:
                assert "error" not in said, (method, said["error"])
                return said["result"]
            self._note(said)

    def _next(self) -> Any:
        while b"\0" not in self._buffer:
            data = os.read(self._from, 1 << 16)
            assert data, "the browser has died"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, said: Any) -> None:
        method, facts = said.get("method"), said.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(facts["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(facts["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(facts["exceptionDetails"]["exception"].get("description", "an exception"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(Exception):
            self.call("Browser.close")
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
