"""One command on its way through the worker: what is asked, what it has printed so far, how it is stopped."""

import io
import json
import threading

from .wire import Failure

# bytes of JSON beyond which a program's output is cut: the gateway would not pass more to its client
MOST_OUTPUT = 48 << 20
# characters kept in one piece, so that what is shown of a long line is no more than a message holds
PIECE = 16 << 10


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
            for at in range(0, len(text), PIECE):
                if self._size > MOST_OUTPUT:
                    break
                piece = text[at : at + PIECE]
                # as it will be written: there a character takes up to twelve bytes
                self._size += len(json.dumps(piece)) - 2
                self._parts.append(piece if self._size <= MOST_OUTPUT else "\n[output cut]\n")
        return len(text)

    def fresh(self, most: int) -> str:
        """What was written since the last call, up to so many characters, of which there is room for a piece."""
        with self._lock:
            taken, size = [], 0
            while self._shown < len(self._parts) and size + len(self._parts[self._shown]) <= most:
                taken.append(self._parts[self._shown])
                size += len(taken[-1])
                self._shown += 1
        return "".join(taken)

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
