"""A static host, and a page in headless Chromium, driven through the browser's own debugging pipe."""

import base64
import functools
import http.server
import json
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.makers.commands import PATIENCE

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions"),
    "--remote-debugging-pipe",
)
IDLE = "!document.querySelector('#draw')?.hasAttribute('aria-disabled')"  # the page neither loads nor draws


class BrowserError(Exception):
    """The browser, or a script in the page, failed."""


def find_browser() -> str | None:
    """Path of an installed Chromium or Chrome."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


class Page:
    """One page; `open_page` makes it.

    Attributes:
        problems: errors of the page's scripts, and what they wrote to the console as errors.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer, self._number = b"", 0
        self.problems: list[str] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = ""
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._send(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to `url`; does not wait for the page's scripts."""
        answer = self._send("Page.navigate", url=url)
        if "errorText" in answer:
            raise BrowserError(f"{url}: {answer['errorText']}")

    def evaluate(self, script: str) -> Any:
        """Value of a JavaScript expression in the page; promises are awaited."""
        answer = self._send(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"].get("exception", {}).get("description", answer)))
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true; what it can't find yet counts as false."""
        end = time.monotonic() + PATIENCE
        while not self.evaluate(f"(() => {{ try {{ return {condition}; }} catch (error) {{ return false; }} }})()"):
            if time.monotonic() > end:
                text = self.evaluate("document.body.innerText")
                raise BrowserError(f"never true: {condition}\n{text}\n{self.problems}")
            time.sleep(0.05)

    def resize(self, width: int, height: int, scale: float = 1.0, dark: bool = False) -> None:
        """Show the page in a window of this size, in the light or the dark scheme."""
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, whole: bool = True) -> None:
        """Write what the page looks like as a PNG file."""
        answer = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def press(self, key: str, code: str, number: int, text: str = "", modifiers: int = 0) -> None:
        """Press and release a key: its value, its physical code, its number, what it types; 2 is with Ctrl."""
        shared = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self._send("Input.dispatchKeyEvent", type="keyDown", **shared, **({"text": text} if text else {}))
        self._send("Input.dispatchKeyEvent", type="keyUp", **shared)

    def insert(self, text: str) -> None:
        """Type a text into what has the focus, in place of what is selected there."""
        self._send("Input.insertText", text=text)

    def move_to(self, x: float, y: float) -> None:
        """Move the mouse to a place of the window."""
        self._send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def download_to(self, folder: Path) -> None:
        """Let the page save files in `folder`."""
        self._send("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def close(self) -> None:
        """Ask the browser to end."""
        self._session = ""
        self._send("Browser.close")

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if getattr(self, "_session", ""):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + PATIENCE
        while (answer := self._receive(end)).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            part = os.read(self._from, 1 << 16) if ready else b""
            if not part:
                raise BrowserError("the browser does not answer" if not ready else "the browser ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed

    def _note(self, event: dict[str, Any]) -> None:
        values = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(values["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.problems.append(f"{values['entry']['text']} {values['entry'].get('url', '')}")
        elif event.get("method") == "Runtime.consoleAPICalled" and values["type"] == "error":
            self.problems.append(json.dumps(values["args"]))


@contextmanager
def open_page(browser: str, profile: Path) -> Iterator[Page]:
    """Start a browser with the empty folder `profile`, and end it afterwards."""
    child_reads, to_browser = os.pipe()
    from_browser, child_writes = os.pipe()
    # Chromium reads file descriptor 3 and writes 4.
    command = f'exec "$@" 3<&{child_reads} 4>&{child_writes}'
    with (profile.parent / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", command, "bash", browser, *OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=(child_reads, child_writes),
            stdout=log,
            stderr=log,
        )
    os.close(child_reads)
    os.close(child_writes)
    try:
        page = Page(to_browser, from_browser)
        yield page
        page.close()
    finally:
        os.close(to_browser)  # ends the browser too
        os.close(from_browser)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """A plain static host for the folder `root`, which can go away and come back.

    Attributes:
        requests: the path of every request.
    """

    def __init__(self, root: Path) -> None:
        self.requests: list[str] = []
        self._handler = functools.partial(Handler, self.requests, directory=str(root))
        self._place = socket.socket()  # keeps the port while nobody listens there
        self._place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._place.bind(("127.0.0.1", 0))
        self._port = self._place.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        """Address of the folder, without a slash at its end."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Serve, at the port of the last time."""
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self._port), self._handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def end(self) -> None:
        """Refuse connections, and give the port away."""
        self.stop()
        self._place.close()


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files, and notes what was asked for instead of printing it."""

    def __init__(self, requests: list[str], *arguments: Any, **options: Any) -> None:
        self._requests = requests
        super().__init__(*arguments, **options)

    def log_message(self, format: str, *args: Any) -> None:
        """Note the path."""
        self._requests.append(self.path)


def text_of(page: Page, element: str) -> str:
    """What the element with this id says."""
    return str(page.evaluate(f"document.querySelector('#{element}').textContent"))


def open_site(page: Page, url: str, **wanted: str) -> None:
    """Open the site in a fresh page, and wait until it drew its first picture, or says why not."""
    page.open("about:blank")
    page.open(f"{url}/#" + "&".join(f"{key}={value.replace(' ', '+')}" for key, value in wanted.items()))
    done = "['facts', 'error'].some((id) => document.getElementById(id)?.textContent)"
    page.wait_for(f"document.readyState === 'complete' && {IDLE} && {done}")


def draw(page: Page, caption: str, seed: int, model: str) -> None:
    """Fill the form, draw, and wait until that is done."""
    values = json.dumps({"caption": caption, "seed": str(seed)})
    page.evaluate(
        f"Object.entries({values}).forEach(([id, value]) => {{ document.getElementById(id).value = value; }})"
    )
    if page.evaluate("document.getElementById('model').value") == model:
        page.evaluate("document.getElementById('draw').click()")
    else:
        page.evaluate(f"document.getElementById('model').value = {model!r}")
        page.evaluate("document.getElementById('model').dispatchEvent(new Event('change'))")
    page.wait_for(IDLE)


def canvas(page: Page, selector: str = "#picture") -> NDArray[np.uint8]:
    """What a canvas shows, uint8 [S, S, 3]."""
    data = page.evaluate(
        """(() => {
        const canvas = document.querySelector("SELECTOR");
        const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return { width, data: btoa(data.reduce((text, byte) => text + String.fromCharCode(byte), "")) };
    })()""".replace("SELECTOR", selector)
    )
    pixels = np.frombuffer(base64.b64decode(data["data"]), np.uint8).reshape(data["width"], data["width"], 4)
    assert (pixels[:, :, 3] == 255).all()
    return pixels[:, :, :3]
