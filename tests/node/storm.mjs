// Many clients at once: prints "up" when all are in, "back" when all are in again after the gateway was away.

import { ask, closeAll, client, next } from "./support.mjs";

const COUNT = Number(process.argv[2]);
const KINDS = [["websocket"], ["websocket"], ["websocket"], ["polling", "websocket"], ["polling"]];
const options = { reconnection: true, reconnectionDelay: 200, reconnectionDelayMax: 2000, timeout: 60_000 };

const sockets = Array.from({ length: COUNT }, (_, n) => client({ ...options, transports: KINDS[n % KINDS.length] }));
await Promise.all(sockets.map((socket) => socket.connected || next(socket, "connect", undefined, 80_000)));
const left = Promise.all(sockets.map((socket) => next(socket, "disconnect", undefined, 80_000)));
const back = Promise.all(sockets.map((socket) => next(socket, "disconnect", undefined, 80_000).then(
  () => next(socket, "connect", undefined, 80_000))));
console.log("up");
const reasons = new Set((await left).map(([reason]) => reason));
await back;
for (const socket of sockets) {
  const said = await ask(socket, "get_status");
  if (said.type !== "status_update") throw new Error(JSON.stringify(said));
}
console.log(`back ${COUNT} after ${[...reasons].join(", ")}`);
closeAll();
