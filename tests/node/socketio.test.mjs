// The 32 cases of the Socket.IO protocol's suite against the gateway's own sockets.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Edge, handshake, life, probed } from "./edge.mjs";

const edge = new Edge("/echo/socket.io/");
const should = (words) => `should ${words}`;
handshake(test, edge, should);
life(test, edge, should);

test("upgrade: should successfully upgrade from HTTP long-polling to WebSocket", async () => {
  const line = await probed(await edge.open());
  line.send("5", "40");
  assert.match(await line.said(), /^40\{"sid":/);
  line.close();
});

test("upgrade: should ignore HTTP requests with same sid after upgrade", async () => {
  const session = await edge.open();
  const line = await probed(session);
  line.send("5", "40");
  await line.said();
  assert.equal((await session.get()).status, 400);
  line.close();
});

test("upgrade: should ignore WebSocket connection with same sid after upgrade", async () => {
  const session = await edge.open();
  const line = await probed(session);
  line.send("5", "40");
  await line.said();
  await session.probe().closed;
  line.close();
});

for (const [what, packet, start, auth] of [
  ["the main namespace", "40", "40", '42["auth",{}]'],
  ["the main namespace with a payload", '40{"token":"123"}', "40", '42["auth",{"token":"123"}]'],
  ["a custom namespace", "40/custom,", "40/custom,", '42/custom,["auth",{}]'],
  ["a custom namespace with a payload", '40/custom,{"token":"abc"}', "40/custom,", '42/custom,["auth",{"token":"abc"}]'],
]) {
  test(`connect: should allow connection to ${what}`, async () => {
    const line = await edge.line();
    line.send(packet);
    const answer = await line.said();
    assert.ok(answer.startsWith(start), answer);
    const hello = JSON.parse(answer.slice(start.length));
    assert.deepEqual(Object.keys(hello), ["sid"]);
    assert.equal(await line.said(), auth);
    line.close();
  });
}

test("connect: should disallow connection to an unknown namespace", async () => {
  const line = await edge.line();
  line.send("40/random");
  assert.equal(await line.said(), '44/random,{"message":"Invalid namespace"}');
  line.close();
});

test("connect: should disallow connection with an invalid handshake", async () => {
  const line = await edge.line();
  line.send("4abc");
  await line.closed;
});

test("connect: should close the connection if no handshake is received", async () => {
  await (await edge.line()).closed;
});

async function joined() {
  const line = await edge.line();
  line.send("40");
  await line.said();
  await line.said();
  return line;
}

test("disconnect: should disconnect from the main namespace", async () => {
  const line = await joined();
  line.send("41");
  assert.equal(await line.next(), "2");
  line.close();
});

test("disconnect: should connect then disconnect from a custom namespace", async () => {
  const line = await joined();
  line.send("40/custom");
  await line.said();
  await line.said();
  line.send("41/custom", '42["message","message to main namespace"]');
  assert.equal(await line.said(), '42["message-back","message to main namespace"]');
  line.close();
});

const PARTS = [Buffer.from([1, 2, 3]), Buffer.from([4, 5, 6])];
const HOLES = '{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}';
for (const [what, sent, heard] of [
  ["a plain-text packet", ['42["message",1,"2",{"3":[true]}]'], ['42["message-back",1,"2",{"3":[true]}]']],
  ["a packet with binary attachments", [`452-["message",${HOLES}]`, ...PARTS], [`452-["message-back",${HOLES}]`, ...PARTS]],
  ["a plain-text packet with an ack", ['42456["message-with-ack",1,"2",{"3":[false]}]'], ['43456[1,"2",{"3":[false]}]']],
  ["a packet with binary attachments and an ack", [`452-789["message-with-ack",${HOLES}]`, ...PARTS], [`462-789[${HOLES}]`, ...PARTS]],
]) {
  test(`message: should send ${what}`, async () => {
    const line = await joined();
    line.send(...sent);
    for (const frame of heard) assert.deepEqual(await line.said(), frame);
    line.close();
  });
}

for (const [what, packet] of [
  ["unknown packet type", "4abc"],
  ["invalid payload format", "42{}"],
  ["invalid ack id", '42abc["message-with-ack",1,"2",{"3":[false]}]'],
]) {
  test(`message: should close the connection upon invalid format (${what})`, async () => {
    const line = await joined();
    line.send(packet);
    await line.closed;
  });
}
