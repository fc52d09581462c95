// The 25 cases of the Engine.IO protocol's suite against the gateway's own sockets.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Edge, handshake, life, probed, sleep } from "./edge.mjs";

const edge = new Edge("/echo/engine.io/");
const should = (words) => words.replace(/^successfully (\w+)/, "successfully $1s").replace(/^(fail|send|close)\b/, "$1s");
handshake(test, edge, should);

for (const [what, payload] of [
  ["one plain text packet", "4hello"],
  ["several plain text packets", "4test1\x1e4test2\x1e4test3"],
  ["plain text and binary packets", "4hello\x1ebAQIDBA=="],
]) {
  test(`message, HTTP long-polling: sends and receives a payload containing ${what}`, async () => {
    const session = await edge.open();
    const pushed = await session.post(payload);
    assert.deepEqual([pushed.status, pushed.text], [200, "ok"]);
    const polled = await session.get();
    assert.deepEqual([polled.status, polled.text], [200, payload]);
  });
}

test("message, HTTP long-polling: closes the session upon invalid packet format", async () => {
  const session = await edge.open();
  await session.post("abc");
  assert.equal((await session.get()).status, 400);
});

test("message, HTTP long-polling: closes the session upon duplicate poll requests", async () => {
  const session = await edge.open();
  const [first, second] = await Promise.all([session.get(), sleep(20).then(() => session.get())]);
  assert.deepEqual([first.status, first.text, second.status], [200, "1", 400]);
  assert.equal((await session.get()).status, 400);
});

test("message, HTTP long-polling: closes the session upon cancelled polling request", async () => {
  const session = await edge.open();
  const cancel = new AbortController();
  const poll = session.get({ signal: cancel.signal }).catch(() => {});
  await sleep(20);
  cancel.abort();
  await poll;
  await sleep(20);
  assert.equal((await session.get()).status, 400);
});

test("message, WebSocket: sends and receives a plain text packet", async () => {
  const line = await edge.line();
  line.send("4hello");
  assert.equal(await line.said(), "4hello");
  line.close();
});

test("message, WebSocket: sends and receives a binary packet", async () => {
  const line = await edge.line();
  line.send(Buffer.from([1, 2, 3, 4]));
  assert.deepEqual(await line.said(), Buffer.from([1, 2, 3, 4]));
  line.close();
});

test("message, WebSocket: closes the session upon invalid packet format", async () => {
  const line = await edge.line();
  line.send("abc");
  await line.closed;
});

life(test, edge, should);

test("upgrade: successfully upgrades from HTTP long-polling to WebSocket", async () => {
  const session = await edge.open();
  const line = await probed(session);
  const poll = await session.get();
  assert.deepEqual([poll.status, poll.text], [200, "6"]);
  line.send("5", "4hello");
  assert.equal(await line.said(), "4hello");
  line.close();
});

test("upgrade: ignores HTTP requests with same sid after upgrade", async () => {
  const session = await edge.open();
  const line = await probed(session);
  line.send("5", "4first");
  assert.equal(await line.said(), "4first");
  assert.equal((await session.get()).status, 400);
  line.send("4hello");
  assert.equal(await line.said(), "4hello");
  line.close();
});

test("upgrade: ignores WebSocket connection with same sid after upgrade", async () => {
  const session = await edge.open();
  const line = await probed(session);
  line.send("5", "4first");
  assert.equal(await line.said(), "4first");
  await session.probe().closed;
  line.send("4hello");
  assert.equal(await line.said(), "4hello");
  line.close();
});
