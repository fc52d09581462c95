"""CAD clients as the real ones behave on the wire: a connection for each message of a script, a page that stays."""

import asyncio
import base64
import contextlib
import json

import websockets

QUIET = 0.3


class Scripts:
    """A script's side: each call opens a connection of its own, as the upstream package does."""

    def __init__(self, port: int, space: str):
        self.url = f"ws://127.0.0.1:{port}/s/{space}"

    async def _send(self, message: bytes, answered: bool):
        async with websockets.connect(self.url, close_timeout=0.05, max_size=1 << 20, ping_interval=None) as socket:
            await socket.send(message)
            return json.loads(await socket.recv()) if answered else None

    async def ask(self, what: str):
        return await self._send(b"C:" + json.dumps(what).encode(), True)

    async def status(self) -> dict:
        answer = await self.ask("status")
        assert answer["command"] == "status"
        return answer["text"]

    async def config(self) -> dict:
        return await self.ask("config")

    async def tell(self, prefix: str, payload) -> None:
        text = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        await self._send(prefix.encode() + b":" + text, False)

    async def exact(self, payload) -> dict:
        return await self._send(b"B:" + json.dumps(payload).encode(), True)


class Page:
    """A page: gets text frames only, reports what it likes."""

    def __init__(self, socket):
        self.socket = socket

    async def text(self) -> str:
        frame = await self.socket.recv()
        assert isinstance(frame, str), "a page can only read text frames"
        return frame

    async def json(self) -> dict:
        return json.loads(await self.text())

    async def report(self, command: str, text) -> None:
        await self.socket.send("U:" + json.dumps({"command": command, "text": text}))

    async def hears_nothing(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(QUIET):
                raise AssertionError(f"unexpected: {(await self.text())[:200]}")


@contextlib.asynccontextmanager
async def page(port: int, space: str, said: str = "L:{}", **options):
    url = f"ws://127.0.0.1:{port}/s/{space}"
    async with websockets.connect(url, max_size=None, ping_interval=None, **options) as socket:
        await socket.send(said)
        yield Page(socket)


async def joined(scripts: Scripts, *pages: Page) -> None:
    """Returns when all pages get what is sent from now on."""
    await scripts.tell("C", {"type": "set_relative_time", "value": 0.25})
    for viewer in pages:
        assert (await viewer.json())["value"] == 0.25


def model(name: str, padding: int = 0, **config) -> bytes:
    """A model as the earlier generation writes it."""
    body = {"data": {"instances": ["A" * padding], "shapes": {"name": name}}, "type": "data"}
    body |= {"config": {"axes": False, "reset_camera": "keep", **config}, "count": 1}
    return json.dumps(body, separators=(",", ":")).encode()


async def until(ask, wanted):
    """Asks until the answer is the wanted one; the test's own deadline bounds it."""
    while True:
        answer = await ask()
        if wanted(answer):
            return answer
        await asyncio.sleep(0.02)


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(2000)).decode()
PNG_URL = "data:image/png;base64," + PNG


async def picture(viewer, **changes) -> dict:
    """Answers a request for a screenshot as a page does."""
    request = await viewer.json()
    assert request["type"] == "screenshot"
    await viewer.report("screenshot", {"filename": request["filename"], "data": PNG_URL, **changes})
    return request
