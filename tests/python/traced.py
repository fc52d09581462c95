"""What the tests of traces share: a collector, a gateway that begins no trace itself, a client that does, a command's spans."""

import secrets

import pytest
from collector import Collector
from stack import Gateway

COMMAND = "gw.v1.cmd.{space}.{service}.{action}"
# short, so that no test waits for a batch
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}
ROUTES = "greet=greeter,count=greeter,execute_command=command_processor"


@pytest.fixture(scope="module")
def collector():
    running = Collector()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def exported(collector):
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **SOON}


@pytest.fixture(scope="module")
def gateway(broker, exported, tmp_path_factory):
    """Begins no trace itself: what is traced is what the clients ask for."""
    routes = {f"GW_{dialect}_ROUTES": ROUTES for dialect in ("VOICE", "ASSISTANT", "SCRIPTING")}
    settings = {"GW_TRACE_RATIO": "0", "OTEL_SERVICE_NAME": "gateway", **routes, **exported}
    server = Gateway(broker, tmp_path_factory.mktemp("traced") / "gateway", **settings)
    yield server
    assert server.stop() == 0, server.log.read_text()


class Client:
    """Where a client's own span stands: the header it sends, and the trace that must come of it."""

    def __init__(self):
        self.trace, self.span = secrets.token_hex(16), secrets.token_hex(8)
        self.header = f"00-{self.trace}-{self.span}-01"


def is_one_command(spans, me: Client, dialect: str, service: str, worker: str, clock=True) -> dict:
    """The four spans of a command, one below the other and one after the other."""
    assert {span.trace for span in spans} == {me.trace}
    named = {(span.service, span.kind, span.name): span for span in spans}
    frame = named["gateway", "server", "receive command"]
    request = named["gateway", "client", f"request {COMMAND}"]
    work = named[worker, "consumer", f"process {COMMAND}"]
    reply = named["gateway", "consumer", "process reply"]
    parents = [frame.parent, request.parent, work.parent, reply.parent]
    assert parents == [me.span, frame.id, request.id, work.id]
    # this machine's clock in all of them, but for a worker that keeps a clock of its own
    began = [frame.start, request.start, *([work.start] if clock else []), reply.start]
    assert began == sorted(began)
    assert request.end <= reply.start and reply.end <= frame.end
    for span in (frame, request, work, reply):
        assert span.said["messaging.system"] == "nats"
        assert span.said["messaging.destination.template"] == COMMAND
        assert span.said["messaging.consumer.group.name"] == service
    assert frame.said["gw.dialect"] == dialect
    assert request.said["messaging.message.id"] == work.said["messaging.message.id"] != ""
    for span in (request, work, reply):
        assert span.said["server.address"] in ("127.0.0.1", "localhost") and span.said["server.port"] > 0
    assert request.said["messaging.operation.type"] == "send"
    assert work.said["messaging.operation.name"] == "process"
    return {"frame": frame, "request": request, "work": work, "reply": reply}
