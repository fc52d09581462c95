// Traces for a worker to copy: the trace of a command goes on in its worker and in what that states.
//
// Optional twice: spans are recorded where OTEL_EXPORTER_OTLP_ENDPOINT names a collector (http://localhost:4318) and npm's
// @opentelemetry/sdk-trace-node and @opentelemetry/exporter-trace-otlp-proto are there. Otherwise the trace passes through.
const COMMAND = "gw.v1.cmd.{space}.{service}.{action}";
const EVENT = "gw.v1.evt.{space}.{dialect}.{topic}";
const CARRIED = ["traceparent", "tracestate"];

let api;
let broker = {};
let provider;
let tracer;

/** Exports spans from now on, where that is asked for and possible. */
export async function start(service, url) {
  const place = new URL(url.includes("://") ? url : `nats://${url}`);
  broker = { "server.address": place.hostname, "server.port": Number(place.port || 4222) };
  const { OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_SDK_DISABLED } = process.env;
  if (!(OTEL_EXPORTER_OTLP_ENDPOINT || OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) || OTEL_SDK_DISABLED === "true") return;
  try {
    const [found, sdk, otlp, { resourceFromAttributes }] = await Promise.all([
      import("@opentelemetry/api"),
      import("@opentelemetry/sdk-trace-node"),
      import("@opentelemetry/exporter-trace-otlp-proto"),
      import("@opentelemetry/resources"),
    ]);
    provider = new sdk.NodeTracerProvider({
      // a trace begins where a client's message comes in, never here
      sampler: new sdk.ParentBasedSampler({ root: new sdk.AlwaysOffSampler() }),
      resource: resourceFromAttributes({ "service.name": process.env.OTEL_SERVICE_NAME || service }),
      spanProcessors: [new sdk.BatchSpanProcessor(new otlp.OTLPTraceExporter())],
    });
    // W3C headers, and a current span that follows every await
    provider.register();
    api = found;
    tracer = provider.getTracer(service);
  } catch (error) {
    console.warn(`no traces leave this worker: ${error.message}`);
  }
}

/** Sends what is left. */
export async function stop() {
  await provider?.shutdown();
}

function span(kind, operation, template, context, attributes, work) {
  const said = {
    "messaging.system": "nats",
    "messaging.operation.name": operation,
    "messaging.operation.type": operation === "process" ? "process" : "send",
    "messaging.destination.template": template,
    ...broker,
    ...attributes,
  };
  return tracer.startActiveSpan(`${operation} ${template}`, { kind, attributes: said }, context, async (current) => {
    const fail = (type) => {
      current.setAttribute("error.type", String(type));
      current.setStatus({ code: api.SpanStatusCode.ERROR });
    };
    try {
      return await work(fail);
    } catch (error) {
      fail(error.name);
      throw error;
    } finally {
      current.end();
    }
  });
}

/** The work on a command, below the request that sent it; `work` is given what tells of a failure. */
export function processing(service, action, message, work) {
  if (!tracer) return work(() => {});
  const headers = Object.fromEntries(CARRIED.map((name) => [name, message.headers?.get(name)]).filter(([, value]) => value));
  const context = api.propagation.extract(api.ROOT_CONTEXT, headers);
  const attributes = {
    "messaging.consumer.group.name": service,
    "messaging.message.id": message.headers?.get("Nats-Msg-Id") ?? "",
    "messaging.message.body.size": message.data.length,
    "gw.service": service,
    "gw.action": action,
  };
  const correlation = message.headers?.get("Gw-Correlation");
  if (correlation) attributes["messaging.message.conversation_id"] = correlation;
  return span(api.SpanKind.CONSUMER, "process", COMMAND, context, attributes, work);
}

/** An event, until it is stored. */
export function publish(dialect, topic, size, id, work) {
  if (!tracer) return work();
  const attributes = { "messaging.message.id": id, "messaging.message.body.size": size, "gw.dialect": dialect, "gw.topic": topic };
  return span(api.SpanKind.PRODUCER, "publish", EVENT, api.context.active(), attributes, work);
}

/** The headers that put what is sent into the trace: below the current span, else below what was received. */
export function carry(message) {
  if (!tracer) {
    return Object.fromEntries(CARRIED.map((name) => [name, message.headers?.get(name)]).filter(([, value]) => value));
  }
  const carried = {};
  const current = api.trace.getActiveSpan()?.spanContext();
  if (current && current.traceFlags & api.TraceFlags.SAMPLED) api.propagation.inject(api.context.active(), carried);
  return carried;
}
