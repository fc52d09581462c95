"""A collector of the tests' own: takes spans over OTLP/HTTP and answers what is asked about them."""

import asyncio
import http.server
import threading
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


class Span(NamedTuple):
    """A span as it was exported."""

    service: str
    trace: str
    id: str
    parent: str
    name: str
    kind: str
    start: int
    end: int
    links: tuple
    said: dict
    failed: bool


def value(any_value):
    return getattr(any_value, any_value.WhichOneof("value"))


def said(attributes) -> dict:
    return {attribute.key: value(attribute.value) for attribute in attributes}


class Collector:
    """Listens on a free port until it is stopped."""

    def __init__(self):
        self.spans: list[Span] = []
        self.lock = threading.Lock()
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self._body()
                if self.path == "/v1/traces":
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding", "") != "chunked":
                    return self.rfile.read(int(self.headers["Content-Length"]))
                body = b""
                while size := int(self.rfile.readline().strip(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, request) -> None:
        found = []
        for resource in request.resource_spans:
            service = said(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                found += [
                    Span(
                        service, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.name,
                        KINDS[span.kind], span.start_time_unix_nano, span.end_time_unix_nano,
                        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                        said(span.attributes), span.status.code == 2,
                    )
                    for span in scope.spans
                ]
        with self.lock:
            self.spans += found

    def trace(self, trace: str) -> list[Span]:
        """What is known of a trace, in the order in which its spans began."""
        with self.lock:
            return sorted((span for span in self.spans if span.trace == trace), key=lambda span: span.start)

    async def whole(self, trace: str, count: int) -> list[Span]:
        """The spans of a trace, as soon as there are as many; the test's own deadline bounds it."""
        while len(spans := self.trace(trace)) < count:
            await asyncio.sleep(0.05)
        return spans

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
