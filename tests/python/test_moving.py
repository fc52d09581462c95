"""Moving over as deploy/docs/moving-over.md says: an original that holds its port, the gateway beside it, then in its place."""

import asyncio
import json
import os
import subprocess
import urllib.error
import urllib.request

import pytest
import websockets
from stack import BIN, PATIENCE


def refusal(gateway) -> subprocess.CompletedProcess:
    """What a gateway says that may not start."""
    return subprocess.run(
        [BIN, "serve"], env=gateway.env, cwd=gateway.folder, capture_output=True, text=True, timeout=PATIENCE
    )


async def test_the_gateway_runs_beside_an_original_and_then_in_its_place(own_gateway, space):
    async def original(socket):
        async for _ in socket:
            await socket.send('{"type": "system_info", "data": {"version": "original"}}')

    async def asked(port: int) -> dict:
        """What a client that knows nothing but its port is told, greetings left out."""
        async with websockets.connect(f"ws://127.0.0.1:{port}/events/{space}") as client:
            await client.send('{"type": "get_system_info", "data": {}}')
            while True:
                said = json.loads(await client.recv())
                if said["type"] not in ("connection_status", "replay"):
                    return said

    gateway = own_gateway()
    beside = gateway.voice
    async with websockets.serve(original, "127.0.0.1", 0) as server:
        [known] = {socket.getsockname()[1] for socket in server.sockets}
        assert (await asked(known))["data"] == {"version": "original"}
        # ours, beside it: nobody serves voice here, and that is said
        assert (await asked(beside))["data"]["code"] == "no_worker"
        assert gateway.stop() == 0
        # in its place too early
        gateway.env["GW_VOICE_PORT"] = str(known)
        told = await asyncio.to_thread(refusal, gateway)
        assert told.returncode == 1
        assert f"port {known} on 127.0.0.1 is taken by " in told.stderr and f"(pid {os.getpid()})" in told.stderr
        assert "voice.port" in told.stderr and "GW_VOICE_PORT" in told.stderr
    await asyncio.to_thread(gateway.start)
    assert (await asked(known))["data"]["code"] == "no_worker"


async def test_people_are_shown_the_ports_under_which_they_reach_it(own_gateway):
    # as compose says what it publishes; 0 where a proxy has taken the port over
    gateway = own_gateway(GW_LINKS_PORTS="gateway=18080,voice=18765,ops=18081,nats=14222,cad=0")
    answer = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{gateway.port}/status.json", None, PATIENCE)
    status = json.load(answer)
    doors = {door["dialect"]: door["port"] for door in status["doors"]}
    assert (doors["voice"], doors["cad"]) == (18765, gateway.cad)
    assert (status["ops_port"], status["nats_url"]) == (18081, "nats://localhost:14222")
    # who opens a client's port in a browser is told where the page is
    with pytest.raises(urllib.error.HTTPError) as refused:
        await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{gateway.voice}/", None, PATIENCE)
    assert refused.value.code == 426 and b"page is on port 18080" in refused.value.read()
