// What the JavaScript tests share: clients from outside the tree, addresses, waiting for an event.

import { createRequire } from "node:module";

const require = createRequire(`${process.env.CAUSEWAY_NODE}/package.json`);
export const { io } = require("socket.io-client");
export const WebSocket = require("ws");
export const url = process.env.CAUSEWAY_URL;
export const space = process.env.CAUSEWAY_SPACE ?? "main";
const PATIENCE = 20_000;

const open = new Set();

/** A client of namespace `/ws`, as `io('ws://localhost:8000/ws')` makes it. */
export function client(options = {}) {
  const { namespace = "/ws", query = { space }, ...rest } = options;
  const socket = io(`${url}${namespace}`, { forceNew: true, query, reconnection: false, ...rest });
  open.add(socket);
  return socket;
}

/** Ends every client a test left. */
export function closeAll() {
  open.forEach((socket) => socket.disconnect());
  open.clear();
}

/** The next event of a name; `wanted` picks among its arguments. */
export function next(socket, name, wanted = () => true, patience = PATIENCE) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error(`no ${name} came`)), patience);
    late.unref();
    const hear = (...args) => {
      if (!wanted(...args)) return;
      clearTimeout(late);
      socket.off(name, hear);
      resolve(args.length > 1 ? args : args[0]);
    };
    socket.on(name, hear);
  });
}

export async function connected(options) {
  const socket = client(options);
  await Promise.race([
    next(socket, "connect"),
    next(socket, "connect_error").then((error) => Promise.reject(error)),
  ]);
  return socket;
}

/** Asks with an ack callback. */
export function ask(socket, method, params = {}) {
  return socket.timeout(PATIENCE).emitWithAck("rpc", { method, params });
}

/** A request over HTTP: status, headers, text. */
export async function fetched(path, options) {
  const answer = await fetch(url + path, options);
  return { status: answer.status, headers: answer.headers, text: await answer.text() };
}
