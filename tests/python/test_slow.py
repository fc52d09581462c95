"""A client that does not read: told to come back, resumed without loss, unnoticed by its neighbours."""

import websockets
from figures import figures
from talk import bus, client, numbers

PADDING = "x" * 4000


async def test_a_slow_reader_is_closed_and_resumes(broker, own_gateway, space):
    gateway = own_gateway()
    # one frame of library queue, then it stops reading; it does not ping either
    slow = client(gateway.events(space), max_queue=1, ping_interval=None)
    async with bus(broker) as publisher, client(gateway.events(space)) as healthy, slow as one:
        heard = []

        async def publish():
            """A few more, no faster than the neighbour reads, so that it alone is never slow."""
            for number in range(len(heard), len(heard) + 20):
                await publisher.event(space, number, padding=PADDING)
            heard.extend(await healthy.frames(20))

        while not (await figures(gateway)).sum("gw_slow_consumer_total", action="close"):
            await publish()
        got = []
        code = None
        try:
            while True:
                got.append(await one.frame())
        except websockets.ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else 1006
        assert code == 1013
        assert numbers(got) == list(range(len(got)))
        for _ in range(5):
            await publish()
        assert len(got) < len(heard)
        assert numbers(heard) == list(range(len(heard)))
        assert (await healthy.socket.ping()) is not None

    since = got[-1]["offset"] if got else one.status["offset"]
    async with client(gateway.events(space, f"?since={since}")) as again:
        assert again.status["recovered"] is True
        seen = list(again.replayed)
        while len(got) + len(seen) < len(heard):
            seen.append(await again.frame())
        assert numbers(seen) == list(range(len(got), len(heard)))
