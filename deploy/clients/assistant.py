"""An assistant client over plain WebSocket. `pip install websockets`, then `python3 assistant.py [address]`."""

import asyncio
import json
import sys

import websockets

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8000/ws"


async def main() -> None:
    async with websockets.connect(ADDRESS) as client:
        await client.send(json.dumps({"method": "get_status", "params": {}}))
        await client.send(json.dumps({"method": "execute_command", "params": {"command": "calculate 6*7"}}))
        async for text in client:
            message = json.loads(text)
            print(message["type"], json.dumps(message["data"]))
            if message["type"] in ("command_response", "error"):
                return


asyncio.run(main())
