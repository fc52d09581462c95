"""A CAD script and a page in one: shows a model to the page. `pip install websockets`, `python3 cad.py [address]`."""

import asyncio
import json
import sys

import websockets

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:3939"


async def main() -> None:
    # a page says first that it is one
    async with websockets.connect(ADDRESS) as page:
        await page.send("L:{}")
        # a script connects anew for everything it has to say
        async with websockets.connect(ADDRESS) as script:
            model = {"type": "data", "data": {"instances": [], "shapes": {"parts": []}}, "config": {}, "count": 1}
            await script.send("D:" + json.dumps(model))
        async for text in page:
            message = json.loads(text)
            print("the page is given", message["type"])
            if message["type"] == "data":
                break
        async with websockets.connect(ADDRESS) as script:
            await script.send('C:"config"')
            print("the script is told", len(json.loads(await script.recv())), "settings")


asyncio.run(main())
