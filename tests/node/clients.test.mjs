// The real socket.io-client over WebSocket, over long polling, and over one that becomes the other.

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { ask, client, closeAll, connected, next, space } from "./support.mjs";

const SEED = "Search cats on youtube, domain youtube.com";
const TRANSPORTS = {
  "websocket only": { transports: ["websocket"] },
  "websocket, binary as text": { transports: ["websocket"], forceBase64: true },
  "polling only": { transports: ["polling"] },
  "polling, then websocket": { transports: ["polling", "websocket"] },
};
afterEach(closeAll);

for (const [name, options] of Object.entries(TRANSPORTS)) {
  test(`${name}: ack, event, status to the space`, async () => {
    const socket = await connected(options);
    const other = await connected({ transports: ["websocket"] });
    assert.notEqual(socket.id, socket.io.engine.id);
    const status = await ask(socket, "get_status");
    assert.equal(status.type, "status_update");
    assert.deepEqual(Object.keys(status.data).sort(), ["command", "language", "vision"]);
    const isDone = (said) => said.type === "status_update" && said.data.status === "completed";
    const told = Promise.all([next(socket, "rpc_response", isDone), next(other, "rpc_response", isDone)]);
    const answered = next(socket, "rpc_response", (said) => said.type === "command_response");
    socket.emit("rpc", { method: "execute_command", params: { command: SEED } });
    const { data } = await answered;
    assert.equal(data["user-command"], "Search cats on youtube");
    assert.equal(data["task-domain-id"], "youtube.com");
    await told;
    const unknown = await ask(socket, "fly");
    assert.equal(unknown.type, "error");
    assert.match(unknown.data.message, /fly/);
  });

  test(`${name}: an event of 10 MB and an attachment`, async () => {
    const socket = await connected(options);
    const big = "x".repeat(10_000_000);
    const said = await ask(socket, "execute_command", { command: "time", note: big });
    assert.equal(said.type, "command_response");
    const pixel = await ask(socket, "execute_command", { command: "time", image: Buffer.alloc(100_000, 7) });
    assert.equal(pixel.type, "command_response");
  });

  test(`${name}: a thousand events in one burst are answered once each`, async () => {
    const socket = await connected(options);
    const asked = Array.from({ length: 1000 }, () => ask(socket, "get_status"));
    const answers = await Promise.all(asked);
    assert.equal(answers.filter((said) => said.type === "status_update").length, 1000);
  });
}

test("polling becomes a websocket and stays the same session", async () => {
  const socket = client({ transports: ["polling", "websocket"] });
  const upgraded = new Promise((resolve) => socket.io.engine.once("upgrade", resolve));
  await next(socket, "connect");
  const id = socket.io.engine.id;
  assert.equal((await upgraded).name, "websocket");
  assert.equal(socket.io.engine.id, id);
  assert.equal((await ask(socket, "get_status")).type, "status_update");
});

test("events asked for all through the upgrade come once, in order", async () => {
  const socket = client({ transports: ["polling", "websocket"] });
  await next(socket, "connect");
  const heard = [];
  for (let n = 0; n < 300; n += 1) {
    heard.push(ask(socket, "execute_command", { command: `calculate ${n}+0` }));
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  const values = (await Promise.all(heard)).map((said) => said.data.result.value);
  assert.deepEqual(values.map(Number), Array.from({ length: 300 }, (_, n) => n));
  assert.equal(socket.io.engine.transport.name, "websocket");
});

test("the sequence of the original's component", async () => {
  const socket = client({ transports: ["websocket"], reconnection: true, reconnectionAttempts: 5 });
  const shown = {};
  socket.on("rpc_response", ({ type, data }) => (shown[type] = data));
  await next(socket, "connect");
  socket.emit("rpc", { method: "get_status", params: {} });
  await next(socket, "rpc_response", ({ type, data }) => type === "status_update" && "vision" in data);
  socket.emit("rpc", { method: "execute_command", params: { command: SEED } });
  await next(socket, "rpc_response", ({ type }) => type === "command_response");
  assert.equal(shown.command_response["user-command"], "Search cats on youtube");
  const left = next(socket, "disconnect");
  socket.disconnect();
  assert.equal((await left)[0], "io client disconnect");
});

test("the root namespace serves the same; an unknown one is refused and the connection lives", async () => {
  const root = await connected({ namespace: "/", transports: ["polling"] });
  assert.equal((await ask(root, "get_status")).type, "status_update");
  const wrong = client({ namespace: "/nowhere", transports: ["polling"] });
  const error = await next(wrong, "connect_error");
  assert.equal(error.message, "Invalid namespace");
});

test("a space is its own", async () => {
  const here = await connected({ transports: ["polling"] });
  const there = await connected({ transports: ["polling"], query: { space: `${space}-other` } });
  there.on("rpc_response", (said) => assert.notEqual(said.type, "status_update", "heard of another space"));
  await ask(here, "execute_command", { command: "time" });
  assert.equal((await ask(there, "fly")).type, "error");
});
