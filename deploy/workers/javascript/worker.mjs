// A worker to copy: service `greeter` with two actions. Needs npm's `nats`; NATS_URL says where (default localhost:4222).
//
// greet {"name": "Ada"}  ->  {"greeting": "Hello, Ada!"}
// count {"to": 3}        ->  a progress for each number, an event `counted` to everybody, then {"counted": 3}
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { connect, headers } from "nats";
import * as bodies from "./bodies.mjs";
import * as traces from "./traces.mjs";

const SERVICE = "greeter";
const running = new Map();

/** A failure told to the client: a number of the contract and a sentence that says what to do. */
class Refused extends bodies.Trouble {}

function said(fields) {
  const list = headers();
  // nanoseconds do not fit a number
  list.set("Gw-Time", String(BigInt(Date.now()) * 1000000n));
  for (const [name, value] of Object.entries(fields)) list.set(name, value);
  return list;
}

/** One command: what was asked, and what can be said before the final answer. */
class Job {
  constructor(client, message) {
    Object.assign(this, { client, message, stop: new AbortController() });
    // gw.v1.cmd.<space>.<service>.<action>
    this.space = message.subject.split(".")[3];
    this.id = message.headers?.get("Nats-Msg-Id") || randomUUID();
    this.params = {};
  }

  /** The parameters, from wherever they are. */
  async read() {
    const text = await bodies.unpack(this.client, this.message);
    try {
      if (text) this.params = JSON.parse(text);
    } catch (error) {
      throw new Refused(400, `the parameters are no JSON: ${error.message}`);
    }
    if (!this.params || typeof this.params !== "object" || Array.isArray(this.params)) {
      throw new Refused(400, "the parameters are a JSON object");
    }
  }

  /** Whether nobody waits any more. */
  get late() {
    const [time, deadline] = ["Gw-Time", "Gw-Deadline"].map((name) => this.message.headers?.get(name));
    return Boolean(time && deadline) && BigInt(Date.now()) * 1000000n > BigInt(time) + BigInt(deadline) * 1000000n;
  }

  /** Tells the sender how it goes; without a body it only keeps the deadline away. */
  async progress(body) {
    const [data, large] = await bodies.pack(this.client, body === undefined ? "" : JSON.stringify(body));
    // a plain publish: respond() is for the final answer
    this.client.publish(this.message.reply, data, { headers: said({ ...large, "Gw-Status": "progress" }) });
  }

  /** States a fact to everybody in the space who speaks the dialect; resolves when it is stored. */
  event(dialect, topic, body) {
    const subject = `gw.v1.evt.${this.space}.${dialect}.${topic}`;
    const data = JSON.stringify(body);
    const id = randomUUID();
    return traces.publish(dialect, topic, data.length, id, async () => {
      const [sent, large] = await bodies.pack(this.client, data);
      const head = said({ ...large, "Nats-Msg-Id": id, ...traces.carry(this.message) });
      return this.client.jetstream().publish(subject, sent, { headers: head });
    });
  }
}

const ACTIONS = {
  async greet({ params }) {
    if (typeof params.name !== "string" || !params.name) throw new Refused(400, `'name' is missing: {"name": "Ada"}`);
    return { greeting: `Hello, ${params.name}!` };
  },
  async count(job) {
    const to = job.params.to ?? 3;
    if (!Number.isInteger(to) || to < 0 || to > 1000) throw new Refused(400, "'to' is a number from 0 to 1000");
    for (let number = 1; number <= to; number += 1) {
      await job.progress({ number });
      await sleep(100, undefined, { signal: job.stop.signal });
    }
    await job.event("voice", "counted", { to });
    return { counted: to };
  },
};

/** Runs an action and gives its one final answer. */
async function answer(client, message, action, fail) {
  const trace = traces.carry(message);
  let job;
  let beat;
  try {
    job = new Job(client, message);
    if (job.late) return;
    running.set(job.id, job);
    beat = setInterval(() => job.progress(), 5000);
    await job.read();
    const [data, large] = await bodies.pack(client, JSON.stringify(await action(job)));
    message.respond(data, { headers: said({ ...large, ...trace }) });
  } catch (error) {
    const [code, text] =
      error instanceof bodies.Trouble ? [error.code, error.message]
      : job?.stop.signal.aborted ? [499, "the command was cancelled"]
      : [500, `${error.name}: ${error.message}`];
    // a header has no end of line
    message.respondError(code, text.replaceAll(/\s+/g, " "), undefined, { headers: said(trace) });
    fail(code);
  } finally {
    clearInterval(beat);
    if (job) running.delete(job.id);
  }
}

const url = process.env.NATS_URL ?? "nats://localhost:4222";
await traces.start(SERVICE, url);
const client = await connect({ servers: url, name: SERVICE, maxReconnectAttempts: -1 });
const service = await client.services.add({
  name: SERVICE, version: "1.0.0", description: "Greets and counts: a worker to copy", queue: SERVICE,
});
// nobody waits for a command any more; every instance hears it, the one that has it stops
client.subscribe(`gw.v1.cmd.*.${SERVICE}.cancel`, {
  callback(_error, message) {
    try { running.get(message.json().id)?.stop.abort(); } catch { /* no cancel of ours */ }
  },
});
for (const [name, action] of Object.entries(ACTIONS)) {
  service.addEndpoint(name, {
    subject: `gw.v1.cmd.*.${SERVICE}.${name}`,
    handler(error, message) {
      if (!error) traces.processing(SERVICE, name, message, (fail) => answer(client, message, action, fail));
    },
  });
}
console.log(`${SERVICE} serves ${Object.keys(ACTIONS).join(", ")} at ${url}; Ctrl-C ends it`);
for (const name of ["SIGINT", "SIGTERM"]) {
  process.once(name, async () => {
    await service.stop();
    for (let waited = 0; running.size && waited < 10000; waited += 50) await sleep(50);
    await client.drain();
    await traces.stop();
    process.exit(0);
  });
}
