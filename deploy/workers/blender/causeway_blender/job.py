"""One command on its way through the worker: what is asked, what it has printed so far, how it is stopped."""

import io
import json
import threading

from .wire import Failure

# beyond this a program's output is cut: the gateway would not pass more to its client
MOST_OUTPUT = 48 << 20


class Cancelled(BaseException):
    """Raised inside running code to end it; not an Exception, so that `except Exception` does not keep it alive."""


class Output(io.TextIOBase):
    """A stdout that remembers all, and knows what has not been shown yet."""

    def __init__(self):
        self._lock = threading.Lock()
        self._parts: list[str] = []
        self._size = 0
        self._shown = 0

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            # as every stdout does; kept, it would break whoever puts the parts together
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        with self._lock:
            room = MOST_OUTPUT - self._size
            if text and room > 0:
                kept = text if len(text) <= room else text[:room] + "\n[output cut]\n"
                self._parts.append(kept)
                self._size += len(kept)
        return len(text)

    def fresh(self, most: int) -> str:
        """At most about this much of what was written since the last call."""
        with self._lock:
            taken, size = [], 0
            while self._shown < len(self._parts) and size < most:
                taken.append(self._parts[self._shown])
                size += len(taken[-1])
                self._shown += 1
        return "".join(taken)[:most]

    def whole(self) -> str:
        with self._lock:
            return "".join(self._parts)


class Job:
    """A command, from its receipt to its one final reply."""

    def __init__(self, action: str, id: str, body: bytes, answer, correlation: str = ""):
        self.action, self.id, self.correlation = action, id, correlation
        self.body = body
        self.output = Output()
        self.running = False
        self.stopped = False
        # called once by the thread that ran it, with a Reply
        self.answer = answer
        # its place in a trace
        self.work = None

    def params(self) -> dict:
        """The command's parameters; the bytes are let go, since code may be large."""
        body, self.body = self.body, b""
        if not body:
            return {}
        try:
            params = json.loads(body)
        except ValueError as error:
            raise Failure("invalid", f"the parameters are not JSON: {error}") from None
        if not isinstance(params, dict):
            raise Failure("invalid", "the parameters must be a JSON object")
        return params
