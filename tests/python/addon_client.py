"""What users of the blender-mcp package do, by its own client class: `addon_client.py <port>`."""

import logging
import sys

from blender_mcp.server import BlenderConnection

# it logs every command at length, code included
logging.disable(logging.INFO)


def refused(client: BlenderConnection, command: str, params: dict) -> str:
    """The text of an error. The client forgets its socket then and connects anew."""
    try:
        client.send_command(command, params)
    except Exception as error:
        client.disconnect()
        return str(error)
    raise AssertionError(f"{command} should have failed")


def main(port: int) -> None:
    client = BlenderConnection("localhost", port)
    assert client.connect()
    assert client.send_command("ping") == {"pong": True}
    assert "name" in client.send_command("get_addon_info")
    run = "execute_code"
    assert client.send_command(run, {"code": "print('hi')"}) == {"executed": True, "result": "hi\n"}
    assert client.send_command(run, {"code": "pass"}) == {"executed": True, "result": ""}
    # several reads of 8 KiB, none of which may end inside a character
    emoji = client.send_command(run, {"code": "print('😀é' * 30000)"})
    assert emoji["result"] == "😀é" * 30000 + "\n"
    braces = client.send_command(run, {"code": "print('}}{{', \"\\\\\")"})
    assert braces["result"] == "}}{{ \\\n"
    large = client.send_command(run, {"code": f"text = '{'x' * 2_000_000}'\nprint(len(text))"})
    assert large["result"] == "2000000\n"
    assert "division by zero" in refused(client, run, {"code": "1/0"})
    assert "Unknown command type: fly" in refused(client, "fly", {})
    for number in range(50):
        assert client.send_command(run, {"code": f"print({number})"})["result"] == f"{number}\n"
    client.disconnect()
    print("all checks passed")


main(int(sys.argv[1]))
