"""Discovery: with `cad.register` the gateway keeps its entry in `~/.ocpvscode`, by the rules all viewers share."""

import asyncio
import json
import os
import socket

import pytest


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def services(home) -> dict:
    """The entries; none while somebody writes."""
    try:
        return json.loads((home / ".ocpvscode").read_text())["services"]
    except (OSError, ValueError, KeyError):
        return {}


async def entered(gateway, home) -> None:
    while str(gateway.cad) not in services(home):
        await asyncio.sleep(0.02)


async def test_the_entry_is_there_while_the_gateway_runs_and_foreign_ones_stay(own_gateway, home):
    foreign = {"version": 2, "services": {"1": "/tmp/kernel.json"}, "unknown": [1]}
    (home / ".ocpvscode").write_text(json.dumps(foreign))
    gateway = own_gateway(HOME=str(home), GW_CAD_REGISTER="true")
    await entered(gateway, home)
    assert services(home) == {"1": "/tmp/kernel.json", str(gateway.cad): ""}
    assert "another viewer" not in gateway.log.read_text(), "a dead entry was taken for a live one"
    assert gateway.stop() == 0
    assert json.loads((home / ".ocpvscode").read_text()) == foreign
    assert sorted(path.name for path in home.iterdir() if path.name.startswith(".ocp")) == [".ocpvscode"]


async def test_unless_told_the_gateway_registers_nowhere(own_gateway, home):
    gateway = own_gateway(HOME=str(home))
    assert gateway.stop() == 0
    assert not (home / ".ocpvscode").exists()


async def test_a_lock_that_was_left_behind_is_removed(own_gateway, home):
    lock = home / ".ocpvscode.lock"
    lock.mkdir()
    os.utime(lock, (1, 1))
    gateway = own_gateway(HOME=str(home), GW_CAD_REGISTER="true")
    await entered(gateway, home)
    assert not lock.exists()


async def test_a_lock_that_is_held_is_waited_for(own_gateway, home):
    lock = home / ".ocpvscode.lock"
    lock.mkdir()
    # whoever holds it is alive, however slow the test
    os.utime(lock, (1 << 33, 1 << 33))
    gateway = own_gateway(HOME=str(home), GW_CAD_REGISTER="true")
    for _ in range(10):
        assert services(home) == {}
        await asyncio.sleep(0.1)
    lock.rmdir()
    await entered(gateway, home)


async def test_a_second_live_viewer_is_warned_about(own_gateway, home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        (home / ".ocpvscode").write_text(json.dumps({"version": 2, "services": {str(port): ""}}))
        gateway = own_gateway(HOME=str(home), GW_CAD_REGISTER="true")
        while f'"other":"{port}"' not in gateway.log.read_text():
            await asyncio.sleep(0.02)
        assert services(home) == {str(port): "", str(gateway.cad): ""}
        # it is asked without a byte, as scripts do
        connection, _ = other.accept()
        assert connection.recv(1) == b""
        connection.close()
