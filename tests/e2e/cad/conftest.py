"""The fixtures of the client tests, and for each generation: a gateway with the pages, a browser, a user's session."""

import contextlib
import os
import pathlib
import sys

import pytest

HERE = pathlib.Path(__file__).parent
# stack is shared with the client tests
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "python")]

import real  # noqa: E402 the path comes first
import stack  # noqa: E402


def pytest_sessionstart():
    if missing := real.missing():
        pytest.exit(f"not here: {missing}; make e2e installs it", returncode=1)


@pytest.fixture(scope="session", params=real.GENERATIONS)
def generation(request):
    return request.param


@pytest.fixture(scope="session")
def broker(generation, tmp_path_factory):
    """One for each generation: what was shown to the one's pages is not the other's."""
    server = stack.Broker(tmp_path_factory.mktemp("bus") / "nats")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def gateway(broker, tmp_path_factory):
    """On the clients' default port, where nobody else has it, and another one on any port."""
    port = stack.free_port() if real.taken(real.PORT) else real.PORT
    folder = tmp_path_factory.mktemp("gateway")
    settings = {"GW_CAD_PORT": str(port), "GW_CAD_ASSETS": str(real.VIEWER)}
    server = stack.Gateway(broker, folder / "one", **settings)
    server.cad = port
    server.second = stack.Gateway(broker, folder / "two", GW_CAD_ASSETS=str(real.VIEWER))
    yield server
    server.second.stop()
    assert server.stop() == 0, server.log.read_text()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    program = real.Browser(tmp_path_factory.mktemp("browser"))
    yield program
    program.stop()


@pytest.fixture(scope="session")
def user(generation, gateway, tmp_path_factory):
    """A session in which only what a tutorial says was typed."""
    program = real.User(generation, tmp_path_factory.mktemp(f"home{generation}"), gateway.cad)
    program.run("from build123d import *\nfrom ocp_vscode import *")
    yield program
    program.stop()


def address(generation, gateway) -> str:
    return f"http://localhost:{gateway.cad}/viewer" + ("?gen=3" if generation == "3" else "")


@pytest.fixture(scope="session")
def lasting(generation, gateway, browser):
    """Two pages that stay open from test to test, as those of people who work do."""
    pages = [browser.open(address(generation, gateway)) for _ in range(2)]
    yield pages
    for page in pages:
        page.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A picture of what a page looked like says more than a count of its colours."""
    report = yield
    if report.when == "call" and report.failed and (folder := os.environ.get("CAD_PICTURES")):
        for page in item.funcargs.get("pages", []):
            with contextlib.suppress(AssertionError):
                page.do("picture", path=f"{folder}/failed-{item.name}-{page.name}.png")
    return report


@pytest.fixture
def pages(lasting):
    """The two pages; neither has complained when a test ends."""
    yield lasting
    assert [page.complaints() for page in lasting] == [[], []]


@pytest.fixture
def open_page(generation, gateway, browser):
    """Opens more pages; none has complained when the test ends."""
    opened = []

    def make(at=gateway, of=generation):
        opened.append(browser.open(address(of, at)))
        return opened[-1]

    yield make
    complaints = [page.complaints() for page in opened]
    for page in opened:
        page.close()
    assert not any(complaints), complaints


@pytest.fixture
def picture(generation, tmp_path):
    """Takes pictures for people, into CAD_PICTURES."""
    folder = pathlib.Path(os.environ.get("CAD_PICTURES", tmp_path))

    def take(page, name: str):
        page.do("picture", path=str(folder / f"{name}-{generation}.png"))

    return take
