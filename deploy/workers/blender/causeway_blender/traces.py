"""The trace of a command goes on in this worker and comes back with its answer.

Spans are recorded where OTEL_EXPORTER_OTLP_ENDPOINT names a collector (http://localhost:4318) and OpenTelemetry's
packages are there; otherwise the trace only passes through. They are no part of the add-on's zip.
"""

import logging
import os
import urllib.parse

from .wire import CODES

log = logging.getLogger(__name__)

TEMPLATE = "gw.v1.cmd.{space}.{service}.{action}"
STATE = "gw.v1.state.{space}.{dialect}.{topic}"
EVENT = "gw.v1.evt.{space}.{dialect}.{topic}"
CARRIED = ("traceparent", "tracestate")


class Work:
    """The span of one command, which begins on one thread and ends when its answer is sent."""

    def __init__(self, headers: dict, span=None, traces=None):
        self._carried = {name: headers[name] for name in CARRIED if name in headers}
        self._span, self._traces = span, traces

    def carry(self) -> dict[str, str]:
        """The headers that put what is sent into the trace."""
        if self._span is None:
            return self._carried
        from opentelemetry.trace import set_span_in_context

        carried: dict[str, str] = {}
        if self._span.get_span_context().trace_flags.sampled:
            self._traces.propagator.inject(carried, set_span_in_context(self._span))
        return carried

    def publish(self, dialect: str, topic: str, id: str, size: int) -> "Work":
        """An event that follows from it, until it is stored."""
        if self._span is None:
            return self
        from opentelemetry.trace import set_span_in_context

        said = {"messaging.message.id": id, "gw.dialect": dialect, "gw.topic": topic}
        return self._traces.span("PRODUCER", "publish", EVENT, set_span_in_context(self._span), size, said)

    def end(self, failure=None) -> None:
        if self._span is None:
            return
        if failure:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", str(CODES.get(failure.code, 500)))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Traces:
    """Where the spans of a service go, if anywhere."""

    def __init__(self, service: str, url: str = ""):
        self._service = service
        first = url.split(",")[0]
        place = urllib.parse.urlsplit(first if "//" in first else f"//{first}")
        self._broker = {"server.address": place.hostname or "127.0.0.1", "server.port": place.port or 4222}
        self._provider = self._tracer = self.propagator = None
        endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        if endpoint and os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true":
            self._open()

    def _open(self) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            log.warning("no traces leave this worker: %s", error)
            return
        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": self._service}
        # a trace begins where a client's message comes in, never here
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_OFF), resource=Resource.create(named), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer(self._service)
        self.propagator = TraceContextTextMapPropagator()

    def begin(self, action: str, headers: dict, size: int) -> Work:
        """The work on a command: below the request that sent it."""
        said = {"messaging.consumer.group.name": self._service, "gw.service": self._service, "gw.action": action}
        if "Gw-Correlation" in headers:
            said["messaging.message.conversation_id"] = headers["Gw-Correlation"]
        return self._continued(TEMPLATE, headers, size, said)

    def follow(self, dialect: str, topic: str, headers: dict, size: int) -> Work:
        """The work on a state: below the span that published it."""
        return self._continued(STATE, headers, size, {"gw.dialect": dialect, "gw.topic": topic})

    def _continued(self, template: str, headers: dict, size: int, said: dict) -> Work:
        if self._tracer is None:
            return Work(headers)
        # an empty context where nothing came: a span that this thread happens to have is no parent
        from opentelemetry.context import Context

        context = self.propagator.extract({name: headers[name] for name in CARRIED if name in headers}, Context())
        said["messaging.message.id"] = headers.get("Nats-Msg-Id", "")
        return self.span("CONSUMER", "process", template, context, size, said)

    def span(self, kind: str, operation: str, template: str, context, size: int, said: dict) -> Work:
        """A span of the messaging conventions."""
        from opentelemetry.trace import SpanKind

        said |= self._broker | {
            "messaging.system": "nats",
            "messaging.operation.name": operation,
            "messaging.operation.type": "process" if operation == "process" else "send",
            "messaging.destination.template": template,
            "messaging.message.body.size": size,
        }
        span = self._tracer.start_span(f"{operation} {template}", context, SpanKind[kind], said)
        return Work({}, span, self)

    def stop(self) -> None:
        """Sends what is left."""
        if self._provider:
            self._provider.shutdown()
