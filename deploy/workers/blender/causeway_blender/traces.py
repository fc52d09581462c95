"""The trace of a command goes on in this worker and comes back with its answer.

Spans are recorded where OTEL_EXPORTER_OTLP_ENDPOINT names a collector (http://localhost:4318) and OpenTelemetry's
packages are there; otherwise the trace only passes through. They are no part of the add-on's zip.
"""

import logging
import os

from .wire import CODES

log = logging.getLogger(__name__)

TEMPLATE = "gw.v1.cmd.{space}.{service}.{action}"
CARRIED = ("traceparent", "tracestate")


class Work:
    """The span of one command, which begins on one thread and ends when its answer is sent."""

    def __init__(self, headers: dict, span=None, propagator=None):
        self._carried = {name: headers[name] for name in CARRIED if name in headers}
        self._span, self._propagator = span, propagator

    def carry(self) -> dict[str, str]:
        """The headers that put the answer into the trace."""
        if self._span is None:
            return self._carried
        from opentelemetry.trace import set_span_in_context

        carried: dict[str, str] = {}
        if self._span.get_span_context().trace_flags.sampled:
            self._propagator.inject(carried, set_span_in_context(self._span))
        return carried

    def end(self, failure=None) -> None:
        if self._span is None:
            return
        if failure:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", str(CODES[failure.code]))
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


class Traces:
    """Where the spans of a service go, if anywhere."""

    def __init__(self, service: str):
        self._service = service
        self._provider = self._tracer = self._propagator = None
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
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, action: str, headers: dict, size: int) -> Work:
        """The work on a command: below the request that sent it."""
        if self._tracer is None:
            return Work(headers)
        from opentelemetry.trace import SpanKind

        said = {
            "messaging.system": "nats",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.template": TEMPLATE,
            "messaging.consumer.group.name": self._service,
            "messaging.message.id": headers.get("Nats-Msg-Id", ""),
            "messaging.message.body.size": size,
            "gw.service": self._service,
            "gw.action": action,
        }
        if "Gw-Correlation" in headers:
            said["messaging.message.conversation_id"] = headers["Gw-Correlation"]
        # an empty context where nothing came: a span that this thread happens to have is no parent
        from opentelemetry.context import Context

        context = self._propagator.extract({name: headers[name] for name in CARRIED if name in headers}, Context())
        span = self._tracer.start_span(f"process {TEMPLATE}", context, SpanKind.CONSUMER, said)
        return Work(headers, span, self._propagator)

    def stop(self) -> None:
        """Sends what is left."""
        if self._provider:
            self._provider.shutdown()
