"""The thread that runs clients' code outlives whatever that code does, and every job is answered once."""

import json
import pathlib
import subprocess
import sys
import threading

import pytest

WORKER = str(pathlib.Path(__file__).parents[2] / "deploy/workers/blender")
sys.path.insert(0, WORKER)

from causeway_blender import actions, job  # noqa: E402 the path comes first
from causeway_blender.gate import Gate  # noqa: E402
from causeway_blender.job import Job  # noqa: E402
from causeway_blender.lane import Lane  # noqa: E402
from causeway_blender.wire import to_json  # noqa: E402


def ran(lane: Lane, code: str, output=None):
    """Runs code as a client's command; its one reply."""
    replies = []
    command = Job("execute_code", "1", to_json({"code": code}), replies.append)
    command.output = output(command) if output else command.output
    assert lane.add(command)
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


BOTH = """
import os, signal, sys, threading, time
sys.path.insert(0, sys.argv[1])
from causeway_blender import headless
from causeway_blender.job import Job
from causeway_blender.lane import Lane

def both():
    lane.stop(job)
    os.kill(os.getpid(), signal.SIGTERM)

def work(job, params):
    threading.Thread(target=both).start()
    while True:
        time.sleep(0.01)

class Bus:
    start = stop = lambda self: None
    alive = lambda self: True

lane = Lane({"work": work})
job = Job("work", "1", b"", lambda reply: print(reply.failure.code))
lane.add(job)
sys.exit(headless.run(Bus(), lane))
"""


@pytest.mark.parametrize("round", range(5))
def test_a_signal_that_comes_with_the_end_of_a_job_ends_the_worker(round):
    ended = subprocess.run([sys.executable, "-c", BOTH, WORKER], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, "cancelled\n"), ended.stderr


@pytest.mark.parametrize("text", ["\n", "é", "😀", "x"])
def test_output_is_cut_where_its_json_would_be_too_long(lane, monkeypatch, text):
    most = 1 << 20
    monkeypatch.setattr(job, "MOST_OUTPUT", most)
    for line in (10, 300_000):
        reply = ran(lane, f"for _ in range({1_200_000 // line}): print({text!r} * {line}, end='')")
        assert most - 12 * job.PIECE < len(reply.body) < most + 64
        assert json.loads(reply.body)["output"].endswith("\n[output cut]\n")


def test_of_a_long_line_nothing_is_left_out_while_it_is_shown():
    output = job.Output()
    text = "".join(chr(0x20 + n % 0x5F) for n in range(3 * job.PIECE + 5))
    output.write(text)
    shown = ""
    while fresh := output.fresh(job.PIECE + 1):
        assert len(fresh) <= job.PIECE + 1
        shown += fresh
        output.write("end")
        text += "end"
        if len(text) > 5 * job.PIECE:
            break
    assert text.startswith(shown) and len(shown) > 3 * job.PIECE


def test_numbers_that_json_has_no_words_for_are_null():
    infinite = float("inf")
    told = to_json({"location": [1.5, infinite, (-infinite,)], "name": "\ud800", "size": {"x": float("nan")}})
    assert told == b'{"location": [1.5, null, [null]], "name": "\\ud800", "size": {"x": null}}'
