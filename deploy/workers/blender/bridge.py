"""A worker in front of an add-on that already listens on TCP: `python3 bridge.py --addon 127.0.0.1:9877 --allow-code`.

For people who move over step by step: their add-on stays as it is, on a port of its own, and the gateway takes its
place on the port that clients know. Needs nats-py, not Blender.
"""

import argparse
import functools
import json
import logging
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
if library := os.environ.get("GW_WORKER_LIBRARY"):
    sys.path.insert(1, library)

from causeway_blender import options  # noqa: E402 the path comes first
from causeway_blender.gate import Gate  # noqa: E402
from causeway_blender.headless import run  # noqa: E402
from causeway_blender.lane import Lane  # noqa: E402
from causeway_blender.wire import Failure, Reply  # noqa: E402
from causeway_blender.worker import Worker  # noqa: E402

log = logging.getLogger(__name__)

ACTIONS = "ping,get_scene_info,get_object_info,execute_code,get_addon_info,get_viewport_screenshot,list_scene_items"
MOST = 64 << 20


class Addon:
    """The add-on's TCP side: one request, one answer, in order."""

    def __init__(self, address: tuple[str, int], patience: float):
        self.address, self.patience = address, patience
        self._socket: socket.socket | None = None

    def ask(self, action: str, params: dict) -> dict:
        try:
            if self._socket is None:
                self._socket = socket.create_connection(self.address, timeout=5)
                # seconds, not minutes: a wait inside recv cannot be interrupted by a cancel
                self._socket.settimeout(0.5)
            self._socket.sendall(json.dumps({"type": action, "params": params}).encode())
            return self._answer(self._socket)
        except OSError as error:
            self.leave()
            raise Failure("worker_error", f"the add-on at {self.address[0]}:{self.address[1]} did not answer: {error}") from None
        except BaseException:
            # whatever comes now would be taken for the answer to the next request
            self.leave()
            raise

    def _answer(self, connection: socket.socket) -> dict:
        heard, waited = bytearray(), 0.0
        while len(heard) <= MOST:
            try:
                more = connection.recv(1 << 20)
            except TimeoutError:
                waited += 0.5
                if waited >= self.patience:
                    raise
                continue
            if not more:
                raise ConnectionError("it closed the connection")
            heard += more
            # an answer is an object: nothing to try before a closing brace
            if heard.rstrip().endswith(b"}"):
                try:
                    return json.loads(heard)
                except ValueError:
                    continue
        raise ConnectionError("its answer is too large")

    def leave(self) -> None:
        if self._socket:
            self._socket.close()
            self._socket = None


def forward(action: str, addon: Addon, gate: Gate, job, params: dict) -> Reply:
    if action == "execute_code":
        gate.check()
    answer = addon.ask(action, params)
    if answer.get("status") != "success":
        raise Failure("worker_error", str(answer.get("message") or "the add-on reports an error"))
    result = answer.get("result")
    if action == "execute_code" and isinstance(result, dict) and "result" in result:
        return Reply.done(output=str(result["result"] or ""))
    return Reply.done(result=result if result is not None else {})


def main() -> int:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--addon", default="127.0.0.1:9877", help="where the add-on listens")
    own.add_argument("--actions", default=ACTIONS, help="what the add-on knows, by comma")
    own.add_argument("--patience", type=float, default=180.0, help="seconds for one answer")
    told, rest = own.parse_known_args()
    general = options.parse(rest)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s blender bridge: %(message)s")
    host, _, port = told.addon.rpartition(":")
    addon, gate = Addon((host, int(port)), told.patience), Gate(general.allow_code, general.allow_exposed)
    actions = told.actions.split(",")
    lane = Lane({name: functools.partial(forward, name, addon, gate) for name in actions})
    worker = Worker(general, lane, f"Bridge to an add-on at {told.addon}", gate)

    return run(worker, lane)


if __name__ == "__main__":
    sys.exit(main())
