"""JSON that is strange or none, from assistant clients of every kind: its exact answer, and a healthy neighbour.

| input | test |
|---|---|
| depth of 10^5, 10^6 keys, keys twice, 1e999, lone surrogates in params | `test_strange_json_reaches_the_worker_as_it_is` |
| the same in the request itself, NaN, BOM, two documents | `test_bad_json_is_refused` |
| cut at every byte | `test_json_cut_anywhere_is_refused`, `test_packets_cut_anywhere_end_the_session` |
| cut inside a letter | `test_text_cut_inside_a_letter_is_closed` |
"""

import pytest
import raw
from engine import joined
from test_assistant import plain
from test_assistant_hostile import BOTH, CARRIERS, NO_METHOD, neighbour, worker

DEEP = "[" * 100_000 + "]" * 100_000
# params as a client writes them; they are the worker's to judge
STRANGE = {
    "depth": '{"x":' + DEEP + "}",
    "keys": "{" + ",".join(f'"k{n}":0' for n in range(1_000_000)) + "}",
    "key twice": '{"command":"a","command":"b"}',
    "number too large": '{"x":1e999,"y":-1e-999}',
    "long number": '{"x":' + "9" * 100_000 + "}",
    "lone surrogates": '{"x":"\\ud800","y":"\\udc00\\ud800"}',
    "NUL": '{"x":"\\u0000"}',
    "no object": "[1,2]",
}


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("name", STRANGE)
async def test_strange_json_reaches_the_worker_as_it_is(broker, gateway, space, name, carrier):
    params = STRANGE[name]
    call = '{"method":"execute_command","params":%s}' % params
    async with worker(broker, space) as heard, neighbour(gateway, space):
        if carrier == "plain":
            async with plain(gateway, space) as one:
                await one.socket.send(call)
                answer = await one.hear("command_response")
        else:
            async with joined(gateway, space, carrier) as one:
                await one.line.send(f'42/ws,["rpc",{call}]')
                answer = await one.response("command_response")
        if "Gw-Body" in (heard[0].headers or {}):
            # above what the broker takes: the worker is given a reference with the size
            assert f"size={len(params)};" in heard[0].headers["Gw-Body"]
        else:
            assert heard[0].data.decode() == params
            assert answer == {"bytes": len(params)}


NOT_JSON = "not JSON; send one JSON object per text frame"
NO_OBJECT = 'a request is an object {"method":…,"params":…}'
TWICE = "method and params may stand once each"
# the request, what a plain client is told, and a Socket.IO client: the same, or the end
BAD = {
    "NaN": ('{"method":"get_status","params":{"x":NaN}}', NOT_JSON, "bad_json"),
    "Infinity": ('{"method":"get_status","params":-Infinity}', NOT_JSON, "bad_json"),
    "BOM": ('\ufeff{"method":"get_status"}', NOT_JSON, "bad_json"),
    "two documents": ('{"method":"get_status"}{"method":"get_status"}', NOT_JSON, "bad_json"),
    "a comment": ('{"method":"get_status"/**/}', NOT_JSON, "bad_json"),
    "a raw line end": ('{"method":"get\nstatus"}', NOT_JSON, "bad_json"),
    "nothing": ("", NOT_JSON, "bad_json"),
    "method twice": ('{"method":"get_status","method":"fly"}', TWICE, TWICE),
    "params twice": ('{"method":"get_status","params":{},"params":{}}', TWICE, TWICE),
    "method a number": ('{"method":1e999}', NO_METHOD, NO_METHOD),
    "method a lone surrogate": ('{"method":"\\ud800"}', NO_METHOD, NO_METHOD),
    "method deep": ('{"method":%s}' % DEEP, NO_METHOD, NO_METHOD),
    "depth alone": (DEEP, NO_OBJECT, NO_OBJECT),
    "a number": ("1e999", NO_OBJECT, NO_OBJECT),
}


@pytest.mark.parametrize("carrier", CARRIERS)
@pytest.mark.parametrize("name", BAD)
async def test_bad_json_is_refused(gateway, space, name, carrier):
    said, to_plain, to_socket = BAD[name]
    async with neighbour(gateway, space):
        if carrier == "plain":
            async with plain(gateway, space) as one:
                await one.socket.send(said)
                assert await one.hear("error") == {"message": to_plain, "code": "invalid"}
                await one.say("get_status")
                await one.hear("status_update")
            return
        async with joined(gateway, space, carrier) as one:
            await one.line.send(f'42/ws,["rpc",{said}]')
            if " " in to_socket:
                assert await one.response("error") == {"message": to_socket, "code": "invalid"}
                assert (await one.ask("get_status"))["type"] == "status_update"
            else:
                said, code, why = await one.ends()
                assert said == []
                assert (code, why) == ((1002, to_socket) if carrier == "websocket" else (None, None))


WHOLE = '{"method":"get_status","params":{"a":[1,"b"]}}'


async def test_json_cut_anywhere_is_refused(gateway, space):
    async with neighbour(gateway, space), plain(gateway, space) as one:
        for end in range(len(WHOLE)):
            await one.socket.send(WHOLE[:end])
            assert await one.hear("error") == {"message": NOT_JSON, "code": "invalid"}, WHOLE[:end]
        await one.socket.send(WHOLE)
        await one.hear("status_update")


@BOTH
async def test_packets_cut_anywhere_end_the_session(gateway, space, transport):
    whole = f'42/ws,["rpc",{WHOLE}]'
    reasons = {"bad_packet", "unknown_packet", "not_connected", "bad_json", "bad_payload"}
    async with neighbour(gateway, space):
        for end in range(len(whole)):
            async with joined(gateway, space, transport) as one:
                await one.line.send(whole[:end])
                said, code, why = await one.ends()
                assert said == [], whole[:end]
                if transport == "websocket":
                    assert code == 1002 and why in reasons, (whole[:end], code, why)


async def test_text_cut_inside_a_letter_is_closed(gateway, space):
    async with neighbour(gateway, space), raw.upgraded(gateway.port, f"/ws/{space}") as peer:
        await peer.send(raw.frame(1, '{"method":"é'.encode()[:-1]))
        assert await peer.close_code() == 1007
