"""A client that does not read: told to come back, resumed without loss, unnoticed by its neighbours."""

import asyncio

import websockets
from talk import bus, client, numbers


async def test_a_slow_reader_is_closed_and_resumes(broker, gateway, space):
    count = 3000
    padding = "x" * 4000
    # one frame of library queue, then it stops reading; it does not ping either
    slow = client(gateway.events(space), max_queue=1, ping_interval=None)
    async with bus(broker) as publisher, client(gateway.events(space)) as healthy, slow as one:

        async def publish():
            for number in range(count):
                await publisher.event(space, number, padding=padding)
                if number % 20 == 0:
                    await publisher.connection.flush()
                    await asyncio.sleep(0.01)

        publishing = asyncio.create_task(publish())
        heard = await healthy.frames(count)
        await publishing
        assert numbers(heard) == list(range(count))
        assert (await healthy.socket.ping()) is not None

        got = []
        code = None
        try:
            while True:
                got.append(await one.frame())
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
        assert code == 1013
        assert numbers(got) == list(range(len(got)))
        assert len(got) < count

    since = got[-1]["offset"] if got else one.status["offset"]
    async with client(gateway.events(space, f"?since={since}")) as again:
        assert again.status["recovered"] is True
        seen = list(again.replayed)
        while len(got) + len(seen) < count:
            seen.append(await again.frame())
        assert numbers(seen) == list(range(len(got), count))
