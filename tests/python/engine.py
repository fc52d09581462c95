"""Socket.IO clients by hand, packet by packet, over both transports, for what no library would send."""

import asyncio
import base64
import contextlib
import json

import websockets

SEPARATOR = "\x1e"


async def request(port: int, method: str, target: str, body: bytes = b"") -> tuple[int, str]:
    """One HTTP request on a connection of its own: status and text."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
        head, _, text = (await reader.read()).partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), text.decode()
    finally:
        writer.close()


class Ended(Exception):
    """The session is over: the close code and reason over WebSocket, None where nothing can carry them."""

    def __init__(self, code=None, reason=None):
        super().__init__(code, reason)
        self.code, self.reason = code, reason


class Polling:
    """A session of long polling: a GET at a time, packets in the order they came."""

    def __init__(self, port: int, at: str, sid: str):
        self.port, self.sid = port, sid
        self.at = f"{at}&sid={sid}"
        self.waiting: list[str] = []

    @classmethod
    async def connect(cls, port: int, space: str, query: str = "") -> "Polling":
        at = f"/socket.io/?EIO=4&transport=polling&space={space}{query}"
        status, text = await request(port, "GET", at)
        assert status == 200 and text[0] == "0", (status, text)
        return cls(port, at, json.loads(text[1:])["sid"])

    async def get(self) -> tuple[int, str]:
        return await request(self.port, "GET", self.at)

    async def post(self, *packets: str) -> tuple[int, str]:
        return await request(self.port, "POST", self.at, SEPARATOR.join(packets).encode())

    async def send(self, *packets: str) -> None:
        assert await self.post(*packets) == (200, "ok")

    async def send_binary(self, data: bytes) -> None:
        await self.send("b" + base64.b64encode(data).decode())

    async def packet(self) -> str:
        """The next packet that is no ping; the end is `Ended`."""
        while True:
            while not self.waiting:
                status, text = await self.get()
                if status != 200:
                    assert (status, json.loads(text)) == (400, {"code": 1, "message": "Session ID unknown"})
                    raise Ended
                self.waiting = text.split(SEPARATOR)
            said = self.waiting.pop(0)
            if said == "1":
                raise Ended
            if said == "2":
                await self.send("3")
                continue
            return said

    async def leave(self) -> None:
        # one that is over already is refused
        await self.post("1")


class Line:
    """A session over WebSocket."""

    def __init__(self, socket):
        self.socket = socket

    @classmethod
    async def connect(cls, port: int, space: str, query: str = "") -> "Line":
        target = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket&space={space}{query}"
        line = cls(await websockets.connect(target, max_size=None, ping_interval=None, open_timeout=30))
        assert (await line.packet())[0] == "0"
        return line

    async def send(self, *packets: str) -> None:
        # the other end may close before it has read everything
        with contextlib.suppress(websockets.ConnectionClosed):
            for packet in packets:
                await self.socket.send(packet)

    async def send_binary(self, data: bytes) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            await self.socket.send(data)

    async def packet(self) -> str:
        while True:
            try:
                said = await self.socket.recv()
            except websockets.ConnectionClosed as closed:
                code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (1006, "")
                raise Ended(code, reason) from closed
            if said != "2":
                return said
            await self.send("3")

    async def leave(self) -> None:
        await self.socket.close()


TRANSPORTS = {"websocket": Line, "polling": Polling}


class Client:
    """A client in namespace `/ws`, whatever carries it."""

    def __init__(self, line):
        self.line = line
        self.acks = 0

    async def heard(self, prefix: str = "42/ws,"):
        """The next packet that begins so, its JSON read; others before it are news."""
        while not (said := await self.line.packet()).startswith(prefix):
            pass
        return json.loads(said[len(prefix) :])

    async def response(self, kind: str) -> dict:
        """The next `rpc_response` of a type."""
        while True:
            _, said = await self.heard()
            if said["type"] == kind:
                return said["data"]

    async def ask(self, method: str, **params) -> dict:
        self.acks += 1
        call = json.dumps(["rpc", {"method": method, "params": params}])
        await self.line.send(f"42/ws,{self.acks}{call}")
        return (await self.heard(f"43/ws,{self.acks}"))[0]

    async def ends(self) -> tuple:
        """Reads to the end: the packets before it, close code and reason."""
        said = []
        try:
            while True:
                said.append(await self.line.packet())
        except Ended as end:
            return said, end.code, end.reason


@contextlib.asynccontextmanager
async def joined(gateway, space: str, transport: str, query: str = ""):
    line = await TRANSPORTS[transport].connect(gateway.port, space, query)
    try:
        await line.send("40/ws,")
        assert (await line.packet()).startswith('40/ws,{"sid":')
        yield Client(line)
    finally:
        await line.leave()


__all__ = ["Client", "Ended", "Line", "Polling", "TRANSPORTS", "joined", "request"]
