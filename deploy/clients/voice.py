"""A voice client: runs the demo flow and prints its events. `pip install websockets`, then `python3 voice.py [address]`."""

import asyncio
import json
import sys

import websockets

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8765"


async def main() -> None:
    async with websockets.connect(ADDRESS) as client:
        async for text in client:
            event = json.loads(text)
            # what happened before comes first, then the greeting, then everything live
            if event["type"] == "replay":
                continue
            if event["type"] == "connection_status":
                if event["data"]["status"] == "connected":
                    await client.send(json.dumps({"type": "demo_flow", "data": {"text": "what time is it"}}))
                continue
            print(event["type"], json.dumps(event["data"])[:100])
            if event["type"] in ("latency_trace", "error"):
                return


asyncio.run(main())
