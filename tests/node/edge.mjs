// What the cases of the Engine.IO and Socket.IO suites share: the test server's address, sessions, frames in order.

import assert from "node:assert/strict";
import { WebSocket, fetched, url } from "./support.mjs";

/** Requests and sockets at one of the two test servers. */
export class Edge {
  constructor(path) {
    this.path = path;
  }

  at(query) {
    return `${this.path}?${query}`;
  }

  async refused(query, options) {
    assert.equal((await fetched(this.at(query), options)).status, 400, query);
  }

  async open() {
    const { status, text } = await fetched(this.at("EIO=4&transport=polling"));
    assert.equal(status, 200);
    assert.equal(text[0], "0");
    const hello = JSON.parse(text.slice(1));
    const poll = this.at(`EIO=4&transport=polling&sid=${hello.sid}`);
    return {
      hello,
      get: (init) => fetched(poll, init),
      post: (body) => fetched(poll, { method: "POST", body }),
      probe: () => new Line(this.at(`EIO=4&transport=websocket&sid=${hello.sid}`)),
    };
  }

  socket(query = "EIO=4&transport=websocket") {
    return new Line(this.at(query));
  }

  /** A socket past the engine's handshake. */
  async line() {
    const line = this.socket();
    assert.equal((await line.next())[0], "0");
    return line;
  }
}

/** A WebSocket whose frames are read one after the other. */
export class Line {
  #frames = [];
  #waiting = [];

  constructor(path) {
    this.socket = new WebSocket(url.replace("http", "ws") + path);
    this.opened = new Promise((resolve) => this.socket.on("open", resolve));
    this.closed = new Promise((resolve) => this.socket.on("close", resolve));
    this.socket.on("error", () => {});
    this.socket.on("message", (data, binary) => {
      const frame = binary ? data : data.toString();
      const next = this.#waiting.shift();
      if (next) next(frame);
      else this.#frames.push(frame);
    });
  }

  send(...frames) {
    frames.forEach((frame) => this.socket.send(frame));
  }

  next() {
    if (this.#frames.length) return Promise.resolve(this.#frames.shift());
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** The next frame that is no ping of the server's. */
  async said() {
    let frame = await this.next();
    while (frame === "2") frame = await this.next();
    return frame;
  }

  close() {
    this.socket.close();
  }
}

export const sleep = (millis) => new Promise((resolve) => setTimeout(resolve, millis));

export function announces(hello, upgrades) {
  assert.deepEqual(Object.keys(hello).sort(), ["maxPayload", "pingInterval", "pingTimeout", "sid", "upgrades"]);
  assert.equal(typeof hello.sid, "string");
  const { pingInterval, pingTimeout, maxPayload } = hello;
  assert.deepEqual([hello.upgrades, pingInterval, pingTimeout, maxPayload], [upgrades, 300, 200, 1_000_000]);
}

/** The handshake's cases, the same in both suites. */
export function handshake(test, edge, should) {
  test(`handshake, HTTP long-polling: ${should("successfully open a session")}`, async () => {
    announces((await edge.open()).hello, ["websocket"]);
  });
  test(`handshake, HTTP long-polling: ${should("fail with an invalid 'EIO' query parameter")}`, async () => {
    await edge.refused("transport=polling");
    await edge.refused("EIO=abc&transport=polling");
  });
  test(`handshake, HTTP long-polling: ${should("fail with an invalid 'transport' query parameter")}`, async () => {
    await edge.refused("EIO=4");
    await edge.refused("EIO=4&transport=abc");
  });
  test(`handshake, HTTP long-polling: ${should("fail with an invalid request method")}`, async () => {
    await edge.refused("EIO=4&transport=polling", { method: "POST" });
    await edge.refused("EIO=4&transport=polling", { method: "PUT" });
  });
  test(`handshake, WebSocket: ${should("successfully open a session")}`, async () => {
    const line = edge.socket();
    announces(JSON.parse((await line.next()).slice(1)), []);
    line.close();
  });
  test(`handshake, WebSocket: ${should("fail with an invalid 'EIO' query parameter")}`, async () => {
    await edge.socket("transport=websocket").closed;
    await edge.socket("EIO=abc&transport=websocket").closed;
  });
  test(`handshake, WebSocket: ${should("fail with an invalid 'transport' query parameter")}`, async () => {
    await edge.socket("EIO=4").closed;
    await edge.socket("EIO=4&transport=abc").closed;
  });
}

/** The cases of heartbeat and close, the same in both suites. */
export function life(test, edge, should) {
  test(`heartbeat, HTTP long-polling: ${should("send ping/pong packets")}`, async () => {
    const session = await edge.open();
    for (let round = 0; round < 3; round += 1) {
      assert.equal((await session.get()).text, "2");
      assert.equal((await session.post("3")).text, "ok");
    }
  });
  test(`heartbeat, HTTP long-polling: ${should("close the session upon ping timeout")}`, async () => {
    const session = await edge.open();
    await sleep(600);
    assert.equal((await session.get()).status, 400);
  });
  test(`heartbeat, WebSocket: ${should("send ping/pong packets")}`, async () => {
    const line = await edge.line();
    for (let round = 0; round < 3; round += 1) {
      assert.equal(await line.next(), "2");
      line.send("3");
    }
    line.close();
  });
  test(`heartbeat, WebSocket: ${should("close the session upon ping timeout")}`, async () => {
    await (await edge.line()).closed;
  });
  test(`close, HTTP long-polling: ${should("forcefully close the session")}`, async () => {
    const session = await edge.open();
    const [poll] = await Promise.all([session.get(), sleep(50).then(() => session.post("1"))]);
    assert.deepEqual([poll.status, poll.text], [200, "6"]);
    assert.equal((await session.get()).status, 400);
  });
  test(`close, WebSocket: ${should("forcefully close the session")}`, async () => {
    const line = await edge.line();
    line.send("1");
    await line.closed;
  });
}

/** An upgrade up to the answer to its probe. */
export async function probed(session) {
  const line = session.probe();
  await line.opened;
  line.send("2probe");
  assert.equal(await line.next(), "3probe");
  return line;
}
