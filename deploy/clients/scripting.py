"""A scripting client: code to Blender and its output back. Nothing to install: `python3 scripting.py [host [port]]`."""

import json
import socket
import sys

HOST = sys.argv[1] if len(sys.argv) > 1 else "localhost"
PORT = int(sys.argv[2]) if len(sys.argv) > 2 else 9876


def documents(connection):
    """The JSON documents that come back to back."""
    decoder, text = json.JSONDecoder(), ""
    while piece := connection.recv(65536):
        text += piece.decode("ascii")
        while text := text.lstrip():
            try:
                document, end = decoder.raw_decode(text)
            except ValueError:
                break
            text = text[end:]
            yield document


with socket.create_connection((HOST, PORT)) as connection:
    request = {"action": "execute_code", "params": {"code": "print('hello from Blender')"}, "id": "1"}
    connection.sendall(json.dumps(request).encode())
    for answer in documents(connection):
        print(json.dumps(answer))
        # an acknowledgement comes first, without the id
        if answer.get("id") == "1":
            break
