// An assistant client over Socket.IO. `npm install socket.io-client`, then `node assistant.mjs [address]`.
import { io } from "socket.io-client";

// the path is the namespace; the transport finds /socket.io/ itself
const socket = io(process.argv[2] ?? "http://localhost:8000/ws");

socket.on("connect", () => {
  console.log("connected over", socket.io.engine.transport.name);
  socket.emit("rpc", { method: "get_status", params: {} });
  // with a callback the answer comes as an acknowledgement
  socket.emit("rpc", { method: "execute_command", params: { command: "calculate 6*7" } }, (answer) => {
    console.log(answer.type, JSON.stringify(answer.data));
    socket.disconnect();
  });
});
socket.on("rpc_response", (message) => console.log(message.type, JSON.stringify(message.data)));
socket.on("connect_error", (error) => {
  console.error(`no connection: ${error.message}`);
  process.exitCode = 1;
  socket.disconnect();
});
