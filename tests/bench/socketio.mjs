// The server to compare with: npm's socket.io as it comes, told by NATS what to say to everybody in `/ws`.

import { createServer } from "node:http";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.CAUSEWAY_NODE}/package.json`);
const { Server } = require("socket.io");
const { connect } = require("nats");

const http = createServer();
const clients = new Server(http).of("/ws");
const bus = await connect({ servers: process.env.NATS_URL });
const said = bus.subscribe("bench.io");
await bus.flush();
http.listen(0, "127.0.0.1", () => console.log(http.address().port));
for await (const message of said) clients.emit("rpc_response", { type: "bench", data: message.json() });
