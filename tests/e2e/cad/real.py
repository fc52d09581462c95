"""The real things: browsers, users' Python sessions with the real packages, upstream's own measurement worker."""

import itertools
import json
import os
import pathlib
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).parent
# importing the CAD packages alone takes half a minute where processors are few
PATIENCE = float(os.environ.get("E2E_PATIENCE", "120"))
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "causeway"
VIEWER = pathlib.Path(os.environ.get("GW_CAD_ASSETS") or CACHE / "viewer")
GENERATIONS = ("3", "4")
PORT = 3939


def python(generation: str) -> str:
    """The interpreter that has this generation's packages."""
    return str(CACHE / "cad" / generation / "bin" / "python")


def until(ask, wanted=bool, what: str = ""):
    """Asks until the answer is the wanted one; what it was last is told when it never is."""
    end = time.monotonic() + PATIENCE
    while not wanted(answer := ask()):
        assert time.monotonic() < end, f"{what or 'it'} is not so: {answer}"
        time.sleep(0.1)
    return answer


def taken(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Program:
    """A process that answers each line with one."""

    def __init__(self, *command: str, log: pathlib.Path, **options):
        self.log = log
        self.answers: queue.Queue = queue.Queue()
        with log.open("a") as err:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True, **options
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def ask(self, question):
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        try:
            line = self.answers.get(timeout=PATIENCE)
        except queue.Empty:
            line = None
        assert line is not None, f"no answer to {question}:\n{self.log.read_text()[-4000:]}"
        return json.loads(line)

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Browser(Program):
    """A Chromium; each page of it has a context of its own."""

    def __init__(self, folder: pathlib.Path):
        super().__init__("node", str(HERE / "browser.mjs"), log=folder / "browser.log")
        self.names = map(str, itertools.count(1))

    def do(self, what: str, **arguments):
        answer = self.ask({"what": what, **arguments})
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def open(self, url: str, **arguments) -> "Page":
        name = next(self.names)
        self.do("open", name=name, url=url, **arguments)
        return Page(self, name)


class Page:
    """One open page."""

    def __init__(self, browser: Browser, name: str):
        self.browser, self.name = browser, name

    def do(self, what: str, **arguments):
        return self.browser.do(what, name=self.name, **arguments)

    def tree(self) -> list[str]:
        return self.do("tree")

    def shows(self, *names: str) -> None:
        """Waits until the tree has these names."""
        until(self.tree, lambda tree: set(names) <= set(tree), f"{names} in the tree")

    def colours(self) -> dict:
        return self.do("colours")

    def coloured(self, colour: str) -> int:
        """Waits until a part of the canvas worth looking at has this colour."""
        return until(self.colours, lambda found: found[colour] > found["all"] * 0.02, f"{colour} on the canvas")[colour]

    def complaints(self) -> list[str]:
        """What went wrong in the page since it was asked last: exceptions, its console's errors, refused requests."""
        return self.do("complaints")

    def has(self, selector: str) -> bool:
        """Whether such a thing is to be seen."""
        return self.do("has", selector=selector)

    def click(self, selector: str, **options):
        self.do("click", selector=selector, **options)

    def close(self):
        self.do("close")


class User(Program):
    """A Python session that says no more than a user would: no port, no host, no settings."""

    def __init__(self, generation: str, home: pathlib.Path, port: int = PORT):
        env = {key: value for key, value in os.environ.items() if not key.startswith(("GW_", "OCP_", "PYTHON"))}
        env |= {"HOME": str(home), "NO_PROXY": "127.0.0.1,localhost"}
        if port != PORT:
            # where the default port is somebody else's, upstream's own way to name another
            env["OCP_PORT"] = str(port)
        super().__init__(python(generation), str(HERE / "user.py"), log=home / "user.log", env=env, cwd=home)
        self.said = ""

    def run(self, code: str):
        """Runs it; the value is that of `result`."""
        answer = self.ask(code)
        self.said = answer["said"]
        assert "error" not in answer, answer["error"] + self.said
        return answer["result"]


class Quiet:
    """A process that is only started, waited for by its log, and ended."""

    def __init__(self, *command: str, log: pathlib.Path, **options):
        self.log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options)

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def missing() -> str:
    """What `make e2e` would have installed and is not there."""
    wanted = [*map(python, GENERATIONS), shutil.which("chromium") or "/usr/bin/chromium", str(VIEWER / "ocp_viewer")]
    return ", ".join(path for path in wanted if not pathlib.Path(path).exists())


if __name__ == "__main__":
    sys.exit(missing())
