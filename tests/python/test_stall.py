"""Messages that begin and do not go on: closed, unless it is the gateway that does not read."""

import asyncio
import json

import raw
from talk import bus


async def test_a_message_that_stops_half_way_ends_the_connection(own_gateway, space):
    gateway = own_gateway(GW_WEBSOCKET_STALL="300ms")
    whole = raw.frame(1, b'{"type":"nobody_knows","data":{}}')
    # in the head, in the payload, between the parts of a message
    for half in (whole[:1], whole[:-1], raw.frame(1, b'{"type":', fin=False)):
        async with raw.upgraded(gateway.port, f"/events/{space}") as peer:
            await peer.send(whole + half)
            assert await peer.close_code() == 1008


async def test_who_is_not_read_may_be_half_way(broker, own_gateway, space):
    gateway = own_gateway(GW_COMMANDS_PER_CONNECTION="1", GW_WEBSOCKET_STALL="500ms")

    async def after_a_while(_, reply):
        # longer than a message may stand still
        await asyncio.sleep(1.5)
        await reply({"late": True})

    ask = raw.frame(1, b'{"type":"get_system_info","data":{},"id":"one"}')
    async with (
        bus(broker) as publisher,
        publisher.worker(space, after_a_while),
        raw.upgraded(gateway.port, f"/events/{space}") as peer,
    ):
        # the second waits for the first, and with it its other half
        await peer.send(ask + ask + ask[:1])
        answers = 0
        while answers < 2:
            opcode, payload = await peer.frame()
            assert opcode != 8, payload
            answers += opcode == 1 and json.loads(payload).get("id") == "one"
