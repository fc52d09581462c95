"""Asks the running compose stack what a voice client would ask: readiness, a command, the demo flow."""

import asyncio
import json
import os
import urllib.error
import urllib.request

import websockets

WAIT = 120


async def ready() -> None:
    url = f"http://127.0.0.1:{os.environ['OPS_PORT']}/readyz"
    while True:
        try:
            await asyncio.to_thread(urllib.request.urlopen, url, None, 2)
            return
        except (urllib.error.URLError, OSError):
            await asyncio.sleep(1)


async def until(client, wanted: str) -> dict:
    async for text in client:
        frame = json.loads(text)
        if frame["type"] == wanted:
            return frame
    raise AssertionError(f"the stream ended before {wanted}")


async def ask(url: str) -> None:
    async with websockets.connect(url) as client:
        while True:
            await client.send(json.dumps({"type": "get_system_info"}))
            answer = json.loads(await client.recv())
            while answer["type"] not in ("system_info", "error"):
                answer = json.loads(await client.recv())
            if answer["type"] == "system_info":
                break
            # the worker starts after the gateway
            assert answer["data"]["code"] == "no_worker", answer
            await asyncio.sleep(1)
        await client.send(json.dumps({"type": "demo_flow"}))
        await until(client, "tts_result")


async def main() -> None:
    async with asyncio.timeout(WAIT):
        await ready()
        await ask(f"ws://127.0.0.1:{os.environ['VOICE_PORT']}")
        await ask(f"ws://127.0.0.1:{os.environ['GATEWAY_PORT']}/events")


asyncio.run(main())
