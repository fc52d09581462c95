"""The lane: jobs wait here for the one thread that may run them, Blender's main thread."""

import collections
import ctypes
import logging
import threading

from .job import Cancelled, Job
from .wire import Failure, Reply

log = logging.getLogger(__name__)

# jobs that wait; beyond, clients are told busy
MOST = 256


class Lane:
    """Filled by the NATS thread, emptied by the thread that calls `step`."""

    def __init__(self, actions: dict):
        self.actions = actions
        self._waiting: collections.deque[Job] = collections.deque()
        # Locked directly where an exception may strike in the middle: a Condition's own `with` could leave it locked.
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)
        self._now: Job | None = None
        self._runner = 0

    def add(self, job: Job) -> bool:
        """Takes a job in, unless too many wait."""
        with self._change:
            if len(self._waiting) >= MOST:
                return False
            self._waiting.append(job)
            self._change.notify()
            return True

    def stop(self, job: Job) -> bool:
        """Ends a job: out of the queue, or by an exception in the middle of its code. True when it never ran.

        Code that is inside C (a render) ends when it comes back to Python. Code that catches everything is
        told again by the next call.
        """
        with self._change:
            job.stopped = True
            if self._now is job:
                _raise_in(self._runner, Cancelled)
                return False
            try:
                self._waiting.remove(job)
            except ValueError:
                return False
            return True

    def busy(self) -> Job | None:
        """The job that runs now."""
        return self._now

    def clear(self) -> list[Job]:
        """Takes out all that wait."""
        with self._change:
            waiting = list(self._waiting)
            self._waiting.clear()
            return waiting

    def step(self, patience: float | None) -> bool:
        """Runs one job; waits up to `patience` seconds for it. False when there was none."""
        with self._change:
            if not self._waiting and not (patience and self._change.wait(patience) and self._waiting):
                return False
            job = self._waiting.popleft()
            self._runner = threading.get_ident()
            self._now = job
        reply, cancelled = None, False
        while True:
            try:
                if reply is None and not cancelled:
                    reply = self._outcome(job)
                self._leave()
                break
            except Cancelled:
                cancelled = True
        # only here, where no other one can strike any more: a long output takes its time
        if reply is None:
            reply = Reply.failed(Failure("cancelled", "the job was cancelled", output=job.output.whole()))
        job.answer(reply)
        return True

    def _outcome(self, job: Job) -> Reply:
        try:
            action = self.actions.get(job.action)
            if action is None:
                raise Failure("unknown_action", f"this worker does not know {job.action}")
            job.running = True
            return action(job, job.params())
        except Failure as failure:
            return Reply.failed(failure)
        except Exception as error:
            log.exception("%s failed", job.action)
            return Reply.failed(Failure("worker_error", str(error) or type(error).__name__, error_type=type(error).__name__))

    def _leave(self) -> None:
        with self._lock:
            self._now = None
        # One may be on its way to this thread still: it must hit nothing after this job.
        _raise_in(threading.get_ident(), None)


def _raise_in(thread: int, error: type | None) -> None:
    """Raises in another thread; None takes back what has not been raised yet."""
    value = ctypes.py_object(error) if error else None
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)
