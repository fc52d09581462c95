"""Runs a client's code: its own globals each time, output captured, errors as the client would have seen them."""

import contextlib
import sys
import traceback

from .job import Cancelled, Job
from .wire import Failure, Reply

# shown in tracebacks; the lines before it are the worker's own and of no use to the client
NAME = "<code>"


def execute_code(job: Job, params: dict, given: dict) -> Reply:
    """`given` are the globals: bpy and friends in Blender."""
    code = params.get("code")
    if not isinstance(code, str) or not code.strip():
        raise Failure("invalid", "execute_code needs `code`, a text that is not empty")
    names = {"__name__": "__main__", "__builtins__": __builtins__, **given}
    with contextlib.redirect_stdout(job.output):
        try:
            exec(compile(code, NAME, "exec"), names)
        except Cancelled:
            raise
        # whatever code raises ends the code, not the worker: KeyboardInterrupt and asyncio's own CancelledError too
        except BaseException as error:
            raise _told(error, job) from None
    return Reply.done(output=job.output.whole())


def _told(error: BaseException, job: Job) -> Failure:
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename != NAME:
        trace = trace.tb_next
    kind = type(error).__name__
    # an error's own __str__ may fail too
    try:
        text = str(error) or kind
    except Exception:
        text = kind
    return Failure(
        "worker_error",
        text,
        error_type=kind,
        traceback="".join(traceback.format_exception(type(error), error, trace)),
        output=job.output.whole(),
    )


def about() -> dict:
    """What the plain interpreter can say of itself."""
    return {"name": "Causeway worker", "python": sys.version.split()[0]}
