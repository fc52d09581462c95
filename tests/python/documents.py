"""Scripting clients and the scripting worker as the tests use them."""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys

from stack import PATIENCE

WORKER = pathlib.Path(__file__).parents[2] / "deploy/workers/blender/worker.py"
_JSON = json.JSONDecoder()


class Talk:
    """A TCP connection that says and hears JSON documents."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer
        self._text = ""

    async def send(self, *documents) -> None:
        """All in one write."""
        self.writer.write(b"".join(json.dumps(one, ensure_ascii=False).encode() for one in documents))
        await self.writer.drain()

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def document(self):
        """The next document; None at the end of the connection."""
        while True:
            # a large document is tried only when its last byte may have come
            if self._text.endswith("}") or len(self._text) < 65536:
                with contextlib.suppress(ValueError):
                    value, end = _JSON.raw_decode(self._text)
                    self._text = self._text[end:]
                    return value
            try:
                more = await self.reader.read(1 << 20)
            except ConnectionError:
                return None
            if not more:
                assert not self._text, f"cut: {self._text[:200]}"
                return None
            # answers are ASCII, so that no read can cut a character
            self._text += more.decode("ascii")

    async def answer(self):
        """The next document that is no acknowledgement."""
        while True:
            document = await self.document()
            if document is None or document.get("status") != "processing":
                return document

    async def action(self, action: str, id="1", /, **params):
        await self.send({"action": action, "params": params, "id": id})
        return await self.answer()

    async def run(self, code: str, id="1"):
        return await self.action("execute_code", id, code=code)

    async def ask(self, kind: str, /, **params):
        """The other shape."""
        await self.send({"type": kind, "params": params})
        return await self.document()


@contextlib.asynccontextmanager
async def talk(port: int):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 21)
    try:
        yield Talk(reader, writer)
    finally:
        writer.close()


class Worker:
    """The project's own worker, in plain Python unless a command says otherwise."""

    def __init__(self, broker, log: pathlib.Path, *arguments: str, command: list[str] | None = None, env=None):
        self.log = log
        line = command or [sys.executable, str(WORKER), "--no-blender"]
        with log.open("a") as out:
            self.process = subprocess.Popen(
                [*line, "--nats", broker.url, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
            )

    def said(self, text: str) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return text in self.log.read_text()

    def serves(self) -> bool:
        return self.said("serves space")

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return -1

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
