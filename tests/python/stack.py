"""A broker and gateways of the tests' own: started on free ports, ended by their process id."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

PATIENCE = 30
BIN = os.path.abspath(os.environ.get("CAUSEWAY_BIN", "target/debug/causeway"))
PATH = os.environ["PATH"] + ":/usr/local/sbin:/usr/sbin:/sbin"
LEGACY = ("assistant", "scripting")


# below what systems give to outgoing connections, which would take a port between its choice and its use
PORTS = range(10_000, 20_000)
_given: set[int] = set()


def free_port() -> int:
    """A port nobody holds at this moment, and none that was given before."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port


def wait(process: subprocess.Popen, what: str, log: pathlib.Path, ready) -> None:
    """Waits until `ready()`; a process that ended or stays silent fails with its log."""
    end = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            process.wait()
            raise AssertionError(f"{what} is not ready:\n{log.read_text()}")
        time.sleep(0.05)


class Broker:
    """nats-server with JetStream."""

    def __init__(self, folder: pathlib.Path, *args: str, env: dict | None = None):
        folder.mkdir()
        self.log = folder / "log"
        command = ["nats-server", "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(folder)]
        command += args or ["-js", "-sd", str(folder / "store")]
        environment = {**os.environ, "PATH": PATH, **(env or {})}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.ports = folder / f"nats-server_{self.process.pid}.ports"
        self.url = ""
        wait(self.process, "nats-server", self.log, self._learn)

    def _learn(self) -> bool:
        # the file may be seen half written
        try:
            self.url = json.loads(self.ports.read_text())["nats"][0]
        except (OSError, ValueError, KeyError):
            return False
        return True

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


class Gateway:
    """The binary under test, on ports that stay its own over restarts."""

    def __init__(self, broker: Broker, folder: pathlib.Path, **settings: str):
        folder.mkdir()
        self.port, self.ops, self.voice, self.cad = (free_port() for _ in range(4))
        self.folder, self.log = folder, folder / "log"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("GW_")}
        self.env |= {
            "GW_NATS_URL": broker.url,
            "GW_GATEWAY_PORT": str(self.port),
            "GW_OPS_PORT": str(self.ops),
            "GW_VOICE_PORT": str(self.voice),
            "GW_CAD_PORT": str(self.cad),
            "GW_LOG_LEVEL": "info",
            # what a bucket may hold is set aside when it is made: a disk with little left has none for the default
            "GW_BODIES_MAX_BYTES": "1GiB",
        }
        # ports of dialects not under test would collide with a gateway that runs beside the tests
        default = subprocess.run([BIN, "config", "default"], capture_output=True, text=True, check=True, env=self.env)
        for dialect in LEGACY:
            if f"[{dialect}]" in default.stdout:
                self.env[f"GW_{dialect.upper()}_PORT"] = "off"
        self.env |= settings
        self.process = None
        self.asked = False
        self.start()

    def start(self) -> None:
        self.asked = False
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [BIN, "serve"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env, cwd=self.folder
            )
        wait(self.process, "the gateway", self.log, self.ready)

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ops}/readyz", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def terminate(self) -> None:
        """Asks it to end, once, and does not wait: a second signal would mean at once."""
        if not self.asked and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.asked = True

    def stop(self) -> int:
        """Ends it and returns its exit code."""
        self.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return self.process.returncode

    def events(self, space: str, query: str = "") -> str:
        return f"ws://127.0.0.1:{self.port}/events/{space}{query}"


class Workers:
    """Reference workers in one process."""

    def __init__(self, broker, log: pathlib.Path, *names: str, **settings: str):
        self.log = log
        env = {key: value for key, value in os.environ.items() if not key.startswith("GW_")}
        env |= {"GW_NATS_URL": broker.url, "GW_LOG_LEVEL": "info", "CAUSEWAY_SPEECH": "off", **settings}
        with log.open("w") as out:
            command = [BIN, "worker", *names]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env)
        wait(self.process, "the workers", log, lambda: log.read_text().count("worker ready") == len(names))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(30)
