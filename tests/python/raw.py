"""A WebSocket by hand, for what no library would send."""

import asyncio
import contextlib
import struct

MASK = b"\x37\xfa\x21\x3d"


def frame(opcode: int, payload: bytes, fin: bool = True, rsv: int = 0) -> bytes:
    """A masked client frame."""
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack(">H", len(payload))
    else:
        head += bytes([0x80 | 127]) + struct.pack(">Q", len(payload))
    return head + MASK + bytes(byte ^ MASK[index & 3] for index, byte in enumerate(payload))


class Peer:
    """A connection after its handshake, and the head of the answer to that."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str):
        self.reader, self.writer, self.head = reader, writer, head

    async def send(self, data: bytes) -> None:
        # the other end may close before it has read everything
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def frame(self) -> tuple[int, bytes]:
        head = await self.reader.readexactly(2)
        length = head[1]
        assert length < 0x80, "a server does not mask"
        if length == 126:
            (length,) = struct.unpack(">H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", await self.reader.readexactly(8))
        return head[0] & 0x0F, await self.reader.readexactly(length)

    async def close_code(self) -> int:
        """Reads to the close frame, then to the end of the connection."""
        while True:
            opcode, payload = await self.frame()
            if opcode == 8:
                break
        assert len(payload) <= 125
        payload[2:].decode()
        await self.send(frame(8, payload[:2]))
        with contextlib.suppress(ConnectionError):
            assert await self.reader.read() == b""
        return struct.unpack(">H", payload[:2])[0]


async def _head(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode()


async def _open(port: int, path: str, changes: dict, early: bytes = b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = {
        "Host": f"127.0.0.1:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    } | changes
    lines = [f"GET {path} HTTP/1.1"]
    for name, values in headers.items():
        if values is None:
            continue
        lines += [f"{name}: {value}" for value in ([values] if isinstance(values, str) else values)]
    writer.write("\r\n".join([*lines, "", ""]).encode() + early)
    return reader, writer, await _head(reader)


async def handshake(port: int, path: str, changes: dict) -> str:
    """The head of the answer to a handshake with headers changed, left out (None) or repeated (a list)."""
    _, writer, head = await _open(port, path, changes)
    writer.close()
    return head


async def said(port: int, request: bytes) -> str:
    """The head of the answer to any bytes; empty when the connection ends without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        return await _head(reader)
    except (ConnectionError, asyncio.IncompleteReadError):
        return ""
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def upgraded(port: int, path: str, early: bytes = b"", changes: dict | None = None):
    """A connection that said `early` in one piece with its handshake."""
    reader, writer, head = await _open(port, path, changes or {}, early)
    assert head.startswith("HTTP/1.1 101"), head
    assert "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, head
    try:
        yield Peer(reader, writer, head)
    finally:
        writer.close()
