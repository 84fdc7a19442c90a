"""A headless browser driven through its debugging pipe: real keys, and scripts that no page's policy hinders."""

import contextlib
import fcntl
import json
import os
import subprocess
import threading

from browser import BROWSER, FLAGS

KEYS = {
    "Enter": (13, "\r"),
    " ": (32, " "),
    "Tab": (9, ""),
    "Escape": (27, ""),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
}
"""Their old numbers, and what they type."""


class Tab:
    """The browser's one tab; ``said`` holds what its console complained of."""

    def __init__(self, read, write):
        self.read, self.write, self.rest = read, write, b""
        self.session, self.count, self.said, self.events = None, 0, [], []
        (target,) = [one for one in self.ask("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        self.session = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **parameters):
        """What the browser answers."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        self.write.write(json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        self.write.flush()
        while (answer := self._next()).get("id") != self.count:
            pass
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def open(self, page, width=400, height=800, mobile=True):
        """A file, in a window of this size, on a phone or not."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self.events:
            self._next()

    def tell(self, expression):
        """What an expression is in the page, as JSON."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, times=1):
        """A real key, as a person presses it."""
        number, text = KEYS[key]
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                typed = {"text": text} if text and kind == "keyDown" else {}
                code = "Space" if key == " " else key
                self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=code, windowsVirtualKeyCode=number, **typed)

    def _next(self):
        while b"\0" not in self.rest:
            more = os.read(self.read.fileno(), 1 << 20)
            assert more, "the browser is gone"
            self.rest += more
        text, self.rest = self.rest.split(b"\0", 1)
        message = json.loads(text)
        self.events.append(message.get("method"))
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.said.append(message["params"])
        return message


def _high(end):
    """The same end of a pipe by a number that is not the browser's 3 or 4, and which no other process inherits."""
    copy = fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(end)
    return copy


@contextlib.contextmanager
def driven(profile):
    """A tab of a fresh browser, which is gone afterwards and after two minutes at the latest."""
    (to_read, write), (read, to_write) = (map(_high, os.pipe()) for _ in range(2))
    command = [BROWSER, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    shell = ["/bin/bash", "-c", f'exec "$@" 3<&{to_read} 4>&{to_write}', "browser", *command]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "pass_fds": (to_read, to_write)}
    with (
        os.fdopen(write, "wb") as sending,
        os.fdopen(read, "rb") as receiving,
        subprocess.Popen(shell, **quiet) as browser,
    ):
        os.close(to_read)
        os.close(to_write)
        limit = threading.Timer(120, browser.kill)
        limit.start()
        try:
            yield Tab(receiving, sending)
        finally:
            limit.cancel()
            browser.terminate()
