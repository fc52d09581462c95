"""Measurement: workers of either kind are instances of `cad`, hear what is selected, answer the page that selected."""

import asyncio
import json

import nats
import nats.micro
import websockets
from viewer import Scripts, joined, page

LISTENER = "L:Python listener"
SHAPES = {"model": {"parts": [{"id": "/Group/box"}]}}
SELECTED = {"activeTool": "PropertiesMeasurement", "selectedShapeIDs": ["/Group/box/faces/faces_1", False]}


async def acknowledged(scripts: Scripts, shapes=SHAPES) -> None:
    """Returns when the exact shapes of a script find a worker."""
    while not (await scripts.exact(shapes))["ok"]:
        await asyncio.sleep(0.05)


async def result(scripts: Scripts, number: int) -> None:
    """A measurement, on a connection of its own as the upstream worker sends it."""
    await scripts.tell("R", {"type": "backend_response", "subtype": "tool_response", "result": number})


async def heard(worker, wanted: str) -> dict:
    """The next message that has a key."""
    while True:
        message = await worker.json()
        if wanted in message:
            return message


async def test_an_upstream_worker_is_an_instance_of_cad(own_gateway, space):
    one, two = own_gateway(), own_gateway()
    scripts, others = Scripts(one.cad, space), Scripts(two.cad, space)
    assert await scripts.exact(SHAPES) == {"ok": False, "reason": "no_backend"}
    async with page(one.cad, space, LISTENER) as worker:
        # a late one gets the last shapes, byte for byte
        assert await worker.text() == json.dumps(SHAPES)
        await acknowledged(scripts)
        # at the other gateway too, but in no other space
        await acknowledged(others)
        assert not (await Scripts(one.cad, space + "-other").exact(SHAPES))["ok"]
        async with page(two.cad, space) as viewer:
            await viewer.report("status", SELECTED)
            assert await heard(worker, "command") == {"command": "status", "text": SELECTED}
            await result(scripts, 1)
            assert (await viewer.json())["result"] == 1
    while (await scripts.exact(SHAPES))["ok"]:
        await asyncio.sleep(0.05)


async def test_a_result_goes_to_the_page_that_selected(gateway, space):
    scripts = Scripts(gateway.cad, space)
    async with (
        page(gateway.cad, space, LISTENER) as worker,
        page(gateway.cad, space) as first,
        page(gateway.cad, space) as second,
    ):
        await acknowledged(scripts)
        # nothing was sent to the pages, so each report is from a hand and its page the one touched last
        for number, viewer in enumerate((first, second, first, second)):
            selected = SELECTED | {"selectedShapeIDs": [f"/Group/box/faces/faces_{number}", False]}
            await viewer.report("status", selected)
            while (await heard(worker, "command"))["text"]["selectedShapeIDs"] != selected["selectedShapeIDs"]:
                pass
            await result(scripts, number)
            assert (await viewer.json())["result"] == number
        # had the others got them too, this would not be the first thing they hear
        await joined(scripts, first, second)


async def test_of_two_workers_one_works_and_the_other_stands_by(gateway, space):
    scripts = Scripts(gateway.cad, space)
    async with page(gateway.cad, space, LISTENER) as one, page(gateway.cad, space) as viewer:
        await acknowledged(scripts)
        async with page(gateway.cad, space, LISTENER) as two:
            await viewer.report("status", SELECTED)
            await heard(one, "command")
            await two.hears_nothing()
            # killed, not closed
            one.socket.transport.abort()
            # it takes over from the last shapes on
            assert json.loads(await two.text()) == SHAPES
            await acknowledged(scripts)


async def test_a_worker_on_nats_measures_by_the_contract_alone(gateway, broker, space):
    scripts = Scripts(gateway.cad, space)
    bus = await nats.connect(broker.url)
    live = await bus.subscribe(f"gw.v1.live.{space}.cad.>")
    await bus.flush()
    service = await nats.micro.add_service(bus, name="cad", version="1.0.0", queue_group="cad")
    await service.add_endpoint(
        name="measure", subject=f"gw.v1.cmd.{space}.cad.measure", handler=lambda request: request.respond(b"{}")
    )
    await acknowledged(scripts)

    async def stated(topic: str) -> dict:
        while True:
            message = await live.next_msg(timeout=60)
            if message.headers["Nats-Subject"] == f"gw.v1.state.{space}.cad.{topic}":
                return json.loads(message.data)

    assert await stated("exact") == SHAPES
    async with page(gateway.cad, space) as viewer:
        await viewer.report("status", SELECTED)
        assert (await stated("status"))["said"] == SELECTED
        answer = {"type": "backend_response", "subtype": "tool_response", "result": 7}
        await bus.jetstream().publish(f"gw.v1.evt.{space}.cad.response", json.dumps(answer).encode())
        assert await viewer.json() == answer
    await service.stop()
    await bus.close()


async def test_a_worker_is_told_to_come_back_when_the_gateway_ends(own_gateway, space):
    gateway = own_gateway()
    async with page(gateway.cad, space, LISTENER) as worker:
        await acknowledged(Scripts(gateway.cad, space))
        gateway.terminate()
        try:
            while True:
                await worker.text()
        except websockets.ConnectionClosed as closed:
            assert closed.rcvd.code == 1001
    assert await asyncio.to_thread(gateway.stop) == 0
