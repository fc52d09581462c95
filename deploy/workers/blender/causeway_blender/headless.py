"""The worker without a window: its main thread runs the jobs until a signal ends it."""

import logging
import signal
import socket
import threading
import time

from . import actions, options
from .gate import Gate
from .job import Cancelled
from .lane import Lane
from .worker import Worker

log = logging.getLogger(__name__)

# a job that is told to end and goes on is told again
AGAIN = 0.5


def main(arguments: list[str]) -> int:
    told = options.parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s blender worker: %(message)s")
    gate = Gate(told.allow_code, told.allow_exposed)
    lane = Lane(actions.plain(gate) if told.no_blender else actions.blender(gate))
    worker = Worker(told, lane, "Plain Python" if told.no_blender else "Blender without a window", gate)
    if told.allow_code:
        log.warning("--allow-code: clients of space %s run any code with this user's rights", told.space)

    return run(worker, lane)


def run(worker: Worker, lane: Lane) -> int:
    """Gives this thread to the jobs until a signal; the process's exit code."""
    asked = threading.Event()
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)

    def end():
        ear.recv(1)
        asked.set()
        while job := lane.busy():
            lane.stop(job)
            time.sleep(AGAIN)

    # Heard on a thread of its own, whatever becomes of the handler: that one runs here, where a job's own end may
    # strike in the middle of it. The handler is for code that takes the descriptor for itself.
    signal.set_wakeup_fd(mouth.fileno())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: mouth.send(b"!"))
    threading.Thread(target=end, name="signals", daemon=True).start()
    worker.start()
    while not asked.is_set() and worker.alive():
        try:
            lane.step(0.5)
        except Cancelled:
            continue
    worker.stop()
    signal.set_wakeup_fd(-1)
    return 0 if asked.is_set() else 1
