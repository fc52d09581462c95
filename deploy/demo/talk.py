# Light traffic of all four dialects, so that the dashboards live: `python3 talk.py [host]`. Standard library only.
# Ports other than the defaults come from the environment: GATEWAY_PORT, SCRIPTING_PORT.
import base64
import json
import os
import random
import socket
import struct
import sys
import threading
import time

HOST = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
GATEWAY = int(os.environ.get("GATEWAY_PORT", "8080"))
SCRIPTING = int(os.environ.get("SCRIPTING_PORT", "9876"))
PATIENCE = 5
STEP = float(os.environ.get("DEMO_STEP", "1"))


class Socket:
    """A WebSocket client, as small as it gets: text frames out, everything in is read and forgotten."""

    def __init__(self, path):
        self.stream = socket.create_connection((HOST, GATEWAY), PATIENCE)
        self.stream.settimeout(PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {HOST}:{GATEWAY}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.stream.recv(1)
            if not byte:
                raise OSError("closed during the handshake")
            head += byte
        if b" 101 " not in head.split(b"\r\n")[0]:
            raise OSError(head.split(b"\r\n")[0].decode(errors="replace"))

    def frame(self, opcode, payload):
        mask = os.urandom(4)
        size = len(payload)
        length = struct.pack(">B", 0x80 | size) if size < 126 else struct.pack(">BH", 0xFE, size)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self.stream.sendall(bytes([0x80 | opcode]) + length + mask + masked)

    def send(self, text):
        self.frame(1, text.encode())

    def exactly(self, size):
        data = b""
        while len(data) < size:
            more = self.stream.recv(size - len(data))
            if not more:
                raise OSError("closed")
            data += more
        return data

    def read(self, wait):
        """Reads what comes within `wait` seconds, answering pings."""
        end = time.monotonic() + wait
        while (left := end - time.monotonic()) > 0:
            self.stream.settimeout(left)
            try:
                first = self.exactly(1)
            except TimeoutError:
                return
            # a frame that has begun comes whole
            self.stream.settimeout(PATIENCE)
            size = self.exactly(1)[0] & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", self.exactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.exactly(8))
            payload = self.exactly(size)
            if first[0] & 0x0F == 9:
                self.frame(10, payload)
            elif first[0] & 0x0F == 8:
                raise OSError("closed by the gateway")


def voice():
    client = Socket("/events")
    for turn in range(30):
        kind = "demo_flow" if turn % 10 == 3 else random.choice(["get_system_info", "get_performance_metrics"])
        client.send(json.dumps({"type": kind}))
        client.read(STEP)


def assistant():
    client = Socket("/ws")
    for turn in range(30):
        ask = {"method": "get_status", "params": {}}
        if turn % 2:
            ask = {"method": "execute_command", "params": {"command": f"calculate {turn} * 7"}}
        client.send(json.dumps(ask))
        client.read(STEP)


def cad():
    page = Socket("/cad")
    page.send("L:{}")
    for turn in range(30):
        page.send('C:"status"' if turn % 2 else 'U:{"command":"status","text":{"zoom":%d}}' % turn)
        page.read(STEP)


def scripting():
    with socket.create_connection((HOST, SCRIPTING), PATIENCE) as client:
        for _ in range(30):
            client.sendall(json.dumps({"type": "get_scene_info", "params": {}}).encode())
            client.settimeout(PATIENCE)
            answer = client.recv(65536)
            if not answer:
                return
            # without Blender the error is a picture too, but a demo is to raise no alarm: CommandsFail counts from 3 a minute
            time.sleep(STEP * 30 if b'"no_worker"' in answer else STEP)


def forever(act):
    while True:
        try:
            act()
        except OSError as error:
            # the gateway may not be there yet, or say goodbye
            print(f"{act.__name__}: {error}", file=sys.stderr, flush=True)
        time.sleep(STEP)


if __name__ == "__main__":
    for act in (voice, assistant, cad, scripting):
        threading.Thread(target=forever, args=(act,), daemon=True).start()
    threading.Event().wait()
