"""Traces for a worker to copy: the trace of a command goes on in its worker and in what that states.

Optional twice: spans are recorded where OTEL_EXPORTER_OTLP_ENDPOINT names a collector (http://localhost:4318) and the
packages opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http are there. Otherwise the trace only passes through.
"""

import contextlib
import logging
import os
import urllib.parse

COMMAND = "gw.v1.cmd.{space}.{service}.{action}"
EVENT = "gw.v1.evt.{space}.{dialect}.{topic}"
CARRIED = ("traceparent", "tracestate")

tracer = provider = propagator = None
# the broker, which every span names
broker: dict = {}


def start(service: str, url: str) -> None:
    """Exports spans from now on, where that is asked for and possible."""
    global tracer, provider, propagator
    first = url.split(",")[0]
    place = urllib.parse.urlsplit(first if "//" in first else f"//{first}")
    broker.update({"server.address": place.hostname or "localhost", "server.port": place.port or 4222})
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    if not endpoint or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ImportError as error:
        logging.warning("no traces leave this worker: %s; pip install opentelemetry-exporter-otlp-proto-http", error)
        return
    named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": service}
    # a trace begins where a client's message comes in, never here
    provider = TracerProvider(sampler=ParentBased(ALWAYS_OFF), resource=Resource.create(named))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer(service)
    propagator = TraceContextTextMapPropagator()


def stop() -> None:
    """Sends what is left."""
    if provider:
        provider.shutdown()


@contextlib.contextmanager
def span(kind: str, operation: str, template: str, context=None, **attributes):
    """A span of the messaging conventions; what is awaited within is below it. Gives `None` where nothing is traced."""
    if not tracer:
        yield None
        return
    from opentelemetry.trace import SpanKind

    said = {
        "messaging.system": "nats",
        "messaging.operation.name": operation,
        "messaging.operation.type": "process" if operation == "process" else "send",
        "messaging.destination.template": template,
        **broker,
        **attributes,
    }
    name = f"{operation} {template}"
    with tracer.start_as_current_span(
        name, context, SpanKind[kind], said, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            failed(current, type(error).__name__)
            raise


def failed(current, what) -> None:
    """Tells in a span what went wrong: the number of the contract, or the name of the error."""
    from opentelemetry.trace import Status, StatusCode

    current.set_attribute("error.type", str(what))
    current.set_status(Status(StatusCode.ERROR))


def process(service: str, action: str, headers: dict, size: int):
    """The work on a command: below the request that sent it."""
    context = propagator.extract({name: headers[name] for name in CARRIED if name in headers}) if propagator else None
    said = {
        "messaging.consumer.group.name": service,
        "messaging.message.id": headers.get("Nats-Msg-Id", ""),
        "messaging.message.body.size": size,
        "gw.service": service,
        "gw.action": action,
    }
    if "Gw-Correlation" in headers:
        said["messaging.message.conversation_id"] = headers["Gw-Correlation"]
    return span("CONSUMER", "process", COMMAND, context, **said)


def publish(dialect: str, topic: str, size: int, id: str):
    """An event, until it is stored."""
    said = {"messaging.message.id": id, "messaging.message.body.size": size, "gw.dialect": dialect, "gw.topic": topic}
    return span("PRODUCER", "publish", EVENT, **said)


def carry(received: dict) -> dict[str, str]:
    """The headers that put what is sent into the trace: below the current span, else below what was received."""
    if not propagator:
        return {name: received[name] for name in CARRIED if name in received}
    from opentelemetry.trace import get_current_span

    carried = {}
    if get_current_span().get_span_context().trace_flags.sampled:
        propagator.inject(carried)
    return carried
