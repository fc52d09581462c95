"""A voice client: runs the demo flow and prints its events. `pip install websockets`, then `python3 voice.py [address]`."""

import asyncio
import json
import sys

import websockets

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8765"


async def main() -> None:
    async with websockets.connect(ADDRESS) as client:
        await client.send(json.dumps({"type": "demo_flow", "data": {"text": "what time is it"}}))
        async for text in client:
            event = json.loads(text)
            # the first frame may be a replay of what happened before
            if event["type"] in ("replay", "connection_status"):
                continue
            print(event["type"], json.dumps(event["data"])[:100])
            if event["type"] in ("latency_trace", "error"):
                return


asyncio.run(main())
