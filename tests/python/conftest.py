"""Fixtures: one broker and one gateway for all tests, more for those that end them; every test under a deadline."""

import asyncio
import inspect
import itertools

import pytest
from stack import Broker, Gateway

DEADLINE = 90


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Runs `async def` tests, none of them longer than the deadline."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}

    async def run():
        async with asyncio.timeout(DEADLINE):
            await pyfuncitem.obj(**arguments)

    asyncio.run(run())
    return True


@pytest.fixture(scope="session")
def broker(tmp_path_factory):
    server = Broker(tmp_path_factory.mktemp("bus") / "nats")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gateway(broker, tmp_path_factory):
    """The gateway most tests share; each test has a space of its own."""
    server = Gateway(broker, tmp_path_factory.mktemp("shared") / "gateway")
    yield server
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture
def own_gateway(broker, tmp_path):
    """Makes gateways that a test may end or configure: `own_gateway(GW_COMMANDS_DEADLINE="1s")`."""
    made = []

    def make(on=broker, **settings):
        made.append(Gateway(on, tmp_path / f"gateway{len(made)}", **settings))
        return made[-1]

    yield make
    for server in made:
        server.stop()


_spaces = itertools.count(1)


@pytest.fixture
def space():
    """A space nobody else uses."""
    return f"test-{next(_spaces)}"
