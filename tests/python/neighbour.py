"""A healthy client beside hostile ones: gets every event of its space in order, before, during and after."""

import asyncio
import contextlib
import json

import websockets
from talk import bus, client, eventually

# each side of what the hostile client does
SOME = 3


def is_tick(frame: dict) -> bool:
    return frame["type"] == "tick"


@contextlib.asynccontextmanager
async def neighbour(broker, gateway, space):
    """Yields once it hears; at the end it must have heard all that was said, in order, and be answered as ever."""
    got, said, enough = [], [], asyncio.Event()

    async def listen(one):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                got.append(await one.frame())

    async def talk(publisher):
        while not enough.is_set():
            await publisher.event(space, len(said))
            said.append(len(said))
            await asyncio.sleep(0.01)

    async def answer(_command, reply):
        await reply({"fine": True})

    def heard():
        return [frame["data"]["n"] for frame in got if is_tick(frame)]

    async with client(gateway.events(space)) as one, bus(broker) as publisher:
        tasks = [asyncio.create_task(listen(one)), asyncio.create_task(talk(publisher))]
        try:
            await eventually(lambda: len(heard()) >= SOME)
            yield one
            during = len(said)
            await eventually(lambda: len(said) >= during + SOME)
            enough.set()
            await tasks[1]
            await eventually(lambda: len(heard()) >= len(said))
            assert heard() == said
            async with publisher.worker(space, answer):
                await one.send({"type": "get_system_info"})
                await eventually(lambda: any(frame["type"] == "system_info" for frame in got))
            assert [frame["data"] for frame in got if not is_tick(frame)] == [{"fine": True}]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def answered(one) -> dict:
    """The next frame of a client that is not what everybody in the space hears."""
    while is_tick(frame := await one.frame()):
        pass
    return frame


async def answered_raw(peer) -> dict:
    """The same for a WebSocket by hand."""
    while True:
        opcode, payload = await peer.frame()
        assert opcode == 1, (opcode, payload)
        frame = json.loads(payload)
        if frame["type"] not in ("tick", "connection_status", "replay"):
            return frame
