"""The bus contract's headers, what a reply looks like, and the errors a job may end with."""

import json
import math
import time

CODES = {
    "invalid": 400,
    "unauthorized": 401,
    "unknown_action": 404,
    "timeout": 408,
    "too_large": 413,
    "busy": 429,
    "cancelled": 499,
    "worker_error": 500,
    "no_worker": 503,
}

# a header is one line of printable ASCII; longer text belongs into the body
_LONGEST = 512


class Failure(Exception):
    """A job's typed end; `details` become the body of the error reply."""

    def __init__(self, code: str, text: str, **details):
        super().__init__(text)
        self.code, self.text, self.details = code, text, details


class Reply:
    """The final answer of a job: a body, or a failure with its details."""

    def __init__(self, body: bytes, content_type: str | None = None, failure: Failure | None = None):
        self.body, self.content_type, self.failure = body, content_type, failure

    @classmethod
    def done(cls, output: str | None = None, result=None) -> "Reply":
        """`{"output", "result"}`, the neutral form every dialect knows how to wrap."""
        told = {"output": output, "result": result}
        return cls(to_json({name: value for name, value in told.items() if value is not None}))

    @classmethod
    def failed(cls, failure: Failure) -> "Reply":
        details = dict(failure.details)
        if header_value(failure.text) != failure.text:
            # the header is one line of ASCII; the whole text is for whoever can show it
            details["message"] = failure.text
        return cls(to_json(details) if details else b"", failure=failure)

    def headers(self) -> dict[str, str]:
        headers = {"Gw-Time": now()}
        if self.content_type:
            headers["Content-Type"] = self.content_type
        if self.failure:
            headers["Nats-Service-Error"] = header_value(self.failure.text)
            headers["Nats-Service-Error-Code"] = str(CODES[self.failure.code])
        return headers


def now() -> str:
    """`Gw-Time`."""
    return str(time.time_ns())


def expired(headers: dict[str, str]) -> bool:
    """Whether the sender of a command has stopped waiting; headers that are no numbers mean no deadline."""
    try:
        until = int(headers["Gw-Time"]) + int(headers["Gw-Deadline"]) * 1_000_000
    except (KeyError, ValueError):
        return False
    return time.time_ns() > until


def header_value(text: str) -> str:
    """Printable ASCII; every other byte as %XX."""
    shown = "".join(
        chr(byte) if 0x20 <= byte < 0x7F else f"%{byte:02X}" for byte in text.strip()[:_LONGEST].encode("utf-8", "replace")
    )
    return shown[:_LONGEST] or "failed"


def to_json(value) -> bytes:
    """ASCII, so that no text a program printed (a lone surrogate, say) can fail to be encoded."""
    try:
        return json.dumps(value, default=str, allow_nan=False).encode()
    except ValueError:
        return json.dumps(_finite(value), default=str, allow_nan=False).encode()


def _finite(value):
    """Without the numbers that JSON has no words for: Python would write them in its own, which nobody else reads."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return value
