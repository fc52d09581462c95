"""What a page's user selects is measured by a worker: upstream's own, or the one on NATS; both generations."""

import os
import pathlib
import time

import pytest
import real

WORKER = pathlib.Path(__file__).parents[3] / "deploy/workers/cad/worker.py"
CUBE = "cube = Box(10, 10, 10)\ncube.color = 'red'\nshow(cube, names=['cube'])"
# of the canvas: what lies in the middle of two faces of a cube, seen from its corner
LEFT, RIGHT = (-0.2, 0.1), (0.2, 0.1)
PANEL = ".tcv_properties_table"


@pytest.fixture(params=["upstream", "nats"])
def start(request, generation, gateway, broker, tmp_path):
    """Starts a worker of one kind or the other and returns when it is there."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GW_")}
    env |= {"HOME": str(tmp_path), "GW_NATS_URL": broker.url, "NO_PROXY": "127.0.0.1,localhost"}
    command = {
        # as the package's own documentation starts it
        "upstream": [real.python(generation), "-m", "ocp_vscode", "--backend", "--port", str(gateway.cad)],
        "nats": [real.python(generation), str(WORKER)],
    }[request.param]
    ready = {"upstream": "Logo model loaded", "nats": "cad serves space main"}[request.param]
    log = tmp_path / "worker.log"
    started = []

    def now():
        started.append(real.Quiet(*command, log=log, env=env, cwd=tmp_path))
        ended = started[0].process.poll
        real.until(log.read_text, lambda text: ready in text or ended() is not None, "the worker")
        assert ended() is None, log.read_text()

    yield now
    for program in started:
        program.stop()


def attached(user) -> None:
    """Shows the cube until a script is told that somebody measures."""

    def known():
        user.run(CUBE)
        return "not connected" not in user.said

    real.until(known, what="a worker that measures")


def select(page, place) -> None:
    """Moves the mouse onto a face, waits until it is highlighted, and clicks."""
    box = page.do("box", selector="canvas")
    x = box["x"] + box["width"] / 2 + place[0] * box["height"]
    y = box["y"] + box["height"] / 2 + place[1] * box["height"]
    before = page.colours()
    for step in range(10):
        page.do("mouse", steps=[["move", x + step % 3, y + step % 2]])
        if page.colours() != before:
            break
    page.do("mouse", steps=[["down"], ["up"]])


def seen_within(seconds: float, ask) -> bool:
    end = time.monotonic() + seconds
    while not (answer := ask()) and time.monotonic() < end:
        time.sleep(0.1)
    return answer


def measured(page, *words: str) -> str:
    """What the page's panel says once it says all this."""

    def panel():
        return page.do("text", selector=PANEL)

    return real.until(panel, lambda text: all(word in text for word in words), f"{words} in the panel")


def test_a_selection_is_measured(user, pages, start, picture):
    one, two = pages
    start()
    attached(user)
    for page in pages:
        page.coloured("red")
    one.click(".tcv_button_properties")
    select(one, LEFT)
    measured(one, "area", "100.000")
    picture(one, "properties")
    one.click(".tcv_button_properties")
    one.click(".tcv_button_distance")
    select(one, LEFT)
    select(one, RIGHT)
    measured(one, "distance", "90.000")
    picture(one, "distance")
    one.click(".tcv_button_distance")
    # who selected nothing is told nothing
    assert not two.has(PANEL)


def test_a_worker_that_comes_late_knows_the_shapes(user, pages, start):
    one, _ = pages
    user.run(CUBE)
    one.coloured("red")
    start()
    one.click(".tcv_button_properties")

    # nothing tells a page when there is a worker: a user who sees nothing clicks again, and a second click deselects
    for _ in range(6):
        select(one, LEFT)
        if seen_within(5, lambda: one.has(PANEL)):
            break
    measured(one, "area", "100.000")
    one.click(".tcv_button_properties")
