// Long polling and REST as a browser's requests see them: refusals, CORS, limits, an end that is told.

import assert from "node:assert/strict";
import { request } from "node:http";
import { afterEach, test } from "node:test";
import { WebSocket, closeAll, connected, fetched, next, space, url } from "./support.mjs";

const AT = `/socket.io/?EIO=4&transport=polling&space=${space}`;
const PAGE = "http://localhost:5173";
afterEach(closeAll);

async function open() {
  const { status, text } = await fetched(AT);
  assert.equal(status, 200);
  return JSON.parse(text.slice(1));
}

async function joined() {
  const { sid } = await open();
  const at = `${AT}&sid=${sid}`;
  assert.equal((await fetched(at, { method: "POST", body: "40/ws," })).text, "ok");
  assert.match((await fetched(at)).text, /^40\/ws,\{"sid":/);
  return at;
}

test("the handshake announces what the reference does", async () => {
  const hello = await open();
  assert.deepEqual(Object.keys(hello), ["sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"]);
  assert.deepEqual(hello.upgrades, ["websocket"]);
  assert.equal(hello.pingInterval, 25000);
  assert.equal(hello.pingTimeout, 20000);
  assert.equal(hello.maxPayload, 64 * 1024 * 1024);
  assert.match(hello.sid, /^[\w-]{20}$/);
});

for (const [what, path, method, code, message] of [
  ["version", "/socket.io/?EIO=3&transport=polling", "GET", 5, "Unsupported protocol version"],
  ["no version", "/socket.io/?transport=polling", "GET", 5, "Unsupported protocol version"],
  ["transport", "/socket.io/?EIO=4&transport=smoke", "GET", 0, "Transport unknown"],
  ["sid", "/socket.io/?EIO=4&transport=polling&sid=nobody", "GET", 1, "Session ID unknown"],
  ["method", "/socket.io/?EIO=4&transport=polling", "POST", 2, "Bad handshake method"],
  ["websocket by GET", "/socket.io/?EIO=4&transport=websocket", "GET", 3, "Bad request"],
]) {
  test(`refused as the reference does: ${what}`, async () => {
    const answer = await fetched(path, { method, headers: { origin: PAGE } });
    assert.equal(answer.status, 400);
    assert.deepEqual(JSON.parse(answer.text), { code, message });
    assert.equal(answer.headers.get("access-control-allow-origin"), PAGE);
  });
}

for (const query of ["EIO=3&transport=websocket", "EIO=4&transport=smoke", "EIO=4&transport=websocket&sid=nobody"]) {
  test(`no websocket at ?${query}`, async () => {
    const socket = new WebSocket(`${url.replace("http", "ws")}/socket.io/?${query}`);
    const status = await new Promise((resolve, reject) => {
      socket.on("unexpected-response", (_, answer) => resolve(answer.statusCode));
      socket.on("open", () => reject(new Error("it opened")));
      socket.on("error", reject);
    });
    assert.equal(status, 400);
  });
}

test("a second poll ends the session: the first hears so, the second is a bad request", async () => {
  const at = await joined();
  await drain(at);
  const [first, second] = await Promise.all([
    fetched(at),
    new Promise((resolve) => setTimeout(resolve, 200)).then(() => fetched(at)),
  ]);
  assert.deepEqual([first.status, first.text, second.status], [200, "1", 400]);
  assert.equal((await fetched(at)).status, 400);
});

test("a close by POST releases the poll that waits", async () => {
  const at = await joined();
  await drain(at);
  const waits = fetched(at);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal((await fetched(at, { method: "POST", body: "1" })).text, "ok");
  assert.equal((await waits).text, "6");
  assert.equal((await fetched(at)).status, 400);
});

test("what came in one body with the close is still done", async () => {
  const listener = await connected({ transports: ["websocket"] });
  const told = next(listener, "rpc_response", (said) => said.data.message === `calculate 6*7 last`);
  const at = await joined();
  const call = { method: "execute_command", params: { command: "calculate 6*7 last" } };
  const body = `42/ws,${JSON.stringify(["rpc", call])}\x1e41/ws,\x1e1`;
  assert.equal((await fetched(at, { method: "POST", body })).text, "ok");
  await told;
});

test("a forbidden payload ends the session, its neighbour does not notice", async () => {
  const neighbour = await joined();
  for (const body of ["", "\x1e", "x", "b!!", "42/ws,[nonsense", "451-/ws,[\"rpc\",{\"_placeholder\":true,\"num\":9}]", "2"]) {
    const at = await joined();
    await fetched(at, { method: "POST", body });
    const answer = await fetched(at);
    const over = answer.status === 400 || answer.text.endsWith("1");
    assert.ok(over, `${JSON.stringify(body)}: ${answer.status} ${answer.text}`);
  }
  const asked = await fetched(neighbour, { method: "POST", body: `42/ws,7["rpc",{"method":"get_status"}]` });
  assert.equal(asked.text, "ok");
  let heard = "";
  while (!heard.includes("43/ws,7[")) heard += (await fetched(neighbour)).text;
});

test("a body above the limit is refused from its length", async () => {
  const at = await joined();
  const answer = await fetched(at, { method: "POST", body: Buffer.alloc(64 * 1024 * 1024 + 1, 52) }).catch(
    (error) => ({ status: error.cause?.code }),
  );
  // the refusal may overtake the upload, which then fails
  assert.ok([413, "EPIPE", "ECONNRESET", "UND_ERR_SOCKET"].includes(answer.status), String(answer.status));
  assert.equal((await fetched(at, { method: "POST", body: "42/ws,[\"rpc\",{}]" })).text, "ok");
});

test("preflights and foreign pages", async () => {
  const asks = { origin: PAGE, "access-control-request-method": "POST", "access-control-request-headers": "content-type" };
  for (const path of [AT, "/api/execute_command"]) {
    const answer = await fetched(path, { method: "OPTIONS", headers: asks });
    assert.equal(answer.status, 204);
    assert.equal(answer.headers.get("access-control-allow-origin"), PAGE);
    assert.match(answer.headers.get("access-control-allow-methods"), /POST/);
    const foreign = await fetched(path, { method: "OPTIONS", headers: { ...asks, origin: "https://evil.example" } });
    assert.equal(foreign.status, 403);
    assert.equal(foreign.headers.get("access-control-allow-origin"), null);
  }
});

test("REST: health, status, a command that is broadcast", async () => {
  assert.deepEqual(JSON.parse((await fetched("/health")).text), { status: "healthy" });
  const listener = await connected({ transports: ["polling"] });
  const heard = next(listener, "rpc_response", (said) => said.type === "command_response");
  const answer = await fetched(`/api/execute_command?space=${space}`, {
    method: "POST",
    headers: { "content-type": "application/json", origin: PAGE },
    body: JSON.stringify({ text: "calculate 2*(3+4)" }),
  });
  assert.deepEqual([answer.status, JSON.parse(answer.text)], [200, { message: "Command execution started" }]);
  assert.equal(answer.headers.get("access-control-allow-origin"), PAGE);
  assert.equal(Number((await heard).data.result.value), 14);
  const status = JSON.parse((await fetched(`/api/status?space=${space}`)).text);
  assert.deepEqual(Object.keys(status).sort(), ["message", "operation", "progress", "status"]);
  assert.equal(status.status, "completed");
  const idle = JSON.parse((await fetched(`/api/status?space=${space}-idle`)).text);
  assert.equal(idle.status, "idle");
});

for (const [what, path, options, status] of [
  ["no screenshots", "/api/screenshot", {}, 501],
  ["no such route", "/api/fly", {}, 404],
  ["wrong method", "/api/execute_command", {}, 405],
  ["no JSON", "/api/execute_command", { method: "POST", body: "{" }, 400],
  ["no text", "/api/execute_command", { method: "POST", body: "{}" }, 400],
  ["too large", "/api/execute_command", { declared: (1 << 20) + 1 }, 413],
]) {
  test(`REST: ${what}`, async () => {
    const answer = await (options.declared ? announced(path, options.declared) : fetched(path, options));
    assert.equal(answer.status, status);
    assert.equal(typeof JSON.parse(answer.text).message, "string");
    if (status === 405) assert.equal(answer.headers.get("allow"), "POST, OPTIONS");
    // an unread body ends the connection, and the client must not use it again
    if (options.declared) assert.equal(answer.connection, "close");
  });
}

/** Fetches what the join brought along, until nothing waits. */
async function drain(at) {
  await fetched(at, { method: "POST", body: '42/ws,99["rpc",{"method":"get_status"}]' });
  let heard = "";
  while (!heard.includes("43/ws,99[")) heard += (await fetched(at)).text;
}

/** Announces a body and sends nothing of it: an answer to the length alone cannot meet an upload under way. */
function announced(path, length) {
  return new Promise((resolve, reject) => {
    const asking = request(url + path, { method: "POST", headers: { "content-length": length } }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (part) => (text += part));
      answer.on("error", reject).on("end", () => resolve({ status: answer.statusCode, connection: answer.headers.connection, text }));
    });
    asking.on("error", reject).flushHeaders();
  });
}
