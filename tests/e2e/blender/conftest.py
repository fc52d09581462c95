"""The fixtures of the client tests, for tests that drive real programs."""

import pathlib
import sys

import pytest

# stack, talk and documents are shared with the client tests
CLIENTS = pathlib.Path(__file__).parents[2] / "python"
sys.path.insert(0, str(CLIENTS))

from importlib import util  # noqa: E402 the path comes first

_spec = util.spec_from_file_location("client_fixtures", CLIENTS / "conftest.py")
_fixtures = util.module_from_spec(_spec)
_spec.loader.exec_module(_fixtures)
# a window drawn in software on a busy machine takes its time
_fixtures.DEADLINE = 300

pytest_pyfunc_call = _fixtures.pytest_pyfunc_call
broker = _fixtures.broker
own_gateway = _fixtures.own_gateway


@pytest.fixture(scope="session", autouse=True)
def scratch(tmp_path_factory):
    """A Blender that is killed leaves a directory behind; it goes with those of the run."""
    with pytest.MonkeyPatch.context() as changed:
        changed.setenv("TMPDIR", str(tmp_path_factory.mktemp("scratch")))
        yield
