"""The thread that runs clients' code outlives whatever that code does, and every job is answered once."""

import pathlib
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "deploy/workers/blender"))

from causeway_blender import actions  # noqa: E402 the path comes first
from causeway_blender.gate import Gate  # noqa: E402
from causeway_blender.job import Job  # noqa: E402
from causeway_blender.lane import Lane  # noqa: E402
from causeway_blender.wire import to_json  # noqa: E402


def ran(lane: Lane, code: str, output=None):
    """Runs code as a client's command; its one reply."""
    replies = []
    job = Job("execute_code", "1", to_json({"code": code}), replies.append)
    job.output = output(job) if output else job.output
    assert lane.add(job)
    assert lane.step(None)
    assert lane.busy() is None
    (reply,) = replies
    return reply


@pytest.fixture
def lane():
    return Lane(actions.plain(Gate(allow_code=True, allow_exposed=True)))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit('done')", "GeneratorExit"),
        ("import asyncio\nasync def main(): raise asyncio.CancelledError\nasyncio.run(main())", "CancelledError"),
        ("class Own(BaseException): pass\nraise Own", "Own"),
        ("import sys; sys.exit()", "SystemExit"),
        ("import sys; sys.stdout.write(b'bytes')", "TypeError"),
    ],
)
def test_whatever_code_raises_is_told_and_the_next_is_served(lane, code, kind):
    reply = ran(lane, "print('before')\n" + code)
    assert (reply.failure.code, reply.failure.details["error_type"]) == ("worker_error", kind)
    assert reply.failure.details["output"] == "before\n"
    assert ran(lane, "print(1)").failure is None


def test_a_job_is_answered_though_it_is_told_to_end_again_while_its_answer_is_made(lane):
    """An answer with all that a runaway program printed takes longer than the time between two requests to end."""

    def stop(job):
        stopper = threading.Thread(target=lane.stop, args=(job,))
        stopper.start()
        stopper.join()

    def output(job):
        class Told(type(job.output)):
            def write(self, text):
                written = super().write(text)
                stop(job)
                return written

            def whole(self):
                stop(job)
                return super().whole()

        return Told()

    reply = ran(lane, "print('x')\nwhile True: pass", output)
    assert (reply.failure.code, reply.failure.details["output"]) == ("cancelled", "x")
    assert ran(lane, "print(1)").failure is None


def test_numbers_that_json_has_no_words_for_are_null():
    infinite = float("inf")
    told = to_json({"location": [1.5, infinite, (-infinite,)], "name": "\ud800", "size": {"x": float("nan")}})
    assert told == b'{"location": [1.5, null, [null]], "name": "\\ud800", "size": {"x": null}}'
