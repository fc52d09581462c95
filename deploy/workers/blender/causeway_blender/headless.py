"""The worker without a window: its main thread runs the jobs until a signal ends it."""

import logging
import signal

from . import actions, options
from .gate import Gate
from .job import Cancelled
from .lane import Lane
from .worker import Worker

log = logging.getLogger(__name__)


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
    ending = False

    def end(*_):
        nonlocal ending
        ending = True
        if lane.busy():
            raise Cancelled

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    worker.start()
    while not ending and worker.alive():
        try:
            # signals are seen between two waits
            lane.step(0.5)
        except Cancelled:
            continue
    worker.stop()
    return 0 if ending else 1
