"""Asks the running compose stack what each dialect's client asks: the example clients of deploy/clients, as they are,
and the blender-mcp package's own. A worker that is still starting is waited for; any other error is a failure."""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

WAIT = 180
ROOT = pathlib.Path(__file__).parents[2]
CLIENTS = ROOT / "deploy" / "clients"
# said while services start or come back
PASSING = ("no_worker", "no worker", "bus_down", "Connect", "refused", "reset", "closed", "no close frame", "HTTP 50", "valid HTTP")


def port(name: str) -> str:
    return os.environ[f"{name}_PORT"]


def url(name: str, path: str = "") -> str:
    return f"ws://127.0.0.1:{port(name)}{path}"


def ready() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port('OPS')}/readyz", timeout=2) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def said(command: list[str]) -> str:
    """What the client prints; one that hears nothing for too long has failed."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    except subprocess.TimeoutExpired as silent:
        return f"nothing more after 60 s: {(silent.stdout or b'').decode(errors='replace')}"
    return done.stdout


def ask(what: str, command: list[str], wanted: str) -> None:
    end = time.monotonic() + WAIT
    while True:
        text = said(command)
        last = (text.strip().splitlines() or [""])[-1]
        if wanted in last:
            print(f"compose-test: {what}: {last[:100]}", flush=True)
            return
        if time.monotonic() > end or not any(word in text for word in PASSING):
            sys.exit(f"compose-test: {what} did not hear {wanted!r}:\n{text[-2000:]}")
        time.sleep(1)


def socket_io(folder: str) -> list[str]:
    """The example beside its modules, which is where it looks them up."""
    copy = pathlib.Path(folder) / "assistant.mjs"
    copy.write_text((CLIENTS / "assistant.mjs").read_text())
    (pathlib.Path(folder) / "node_modules").symlink_to(os.environ["CAUSEWAY_NODE_MODULES"])
    return ["node", str(copy), f"http://127.0.0.1:{port('ASSISTANT')}/ws"]


def main() -> None:
    end = time.monotonic() + WAIT
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"compose-test: no gateway is ready after {WAIT} s")
        time.sleep(1)

    def example(name: str, *arguments: str) -> list[str]:
        return [sys.executable, str(CLIENTS / name), *arguments]

    ask("voice", example("voice.py", url("VOICE")), "latency_trace")
    ask("voice, gateway port", example("voice.py", url("GATEWAY", "/events")), "latency_trace")
    ask("assistant", example("assistant.py", url("ASSISTANT", "/ws")), '"value": 42')
    with tempfile.TemporaryDirectory() as folder:
        ask("assistant, Socket.IO", socket_io(folder), '"value":42')
    ask("scripting", example("scripting.py", "127.0.0.1", port("SCRIPTING")), "hello from Blender")
    ask("scripting, gateway port", example("scripting.py", "127.0.0.1", port("GATEWAY")), "hello from Blender")
    package = [sys.executable, str(ROOT / "tests/python/addon_client.py"), port("SCRIPTING")]
    ask("scripting, blender-mcp", package, "all checks passed")
    ask("cad", example("cad.py", url("CAD")), "settings")


main()
