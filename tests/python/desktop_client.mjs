// The desktop client's way of reading: every `data` event is taken for one document, what does not parse is dropped.
import net from 'node:net';

const [port, count] = process.argv.slice(2).map(Number);
const waiting = new Map();
let resolved = 0;
let unparsed = 0;

const socket = net.connect(port, '127.0.0.1', () => {
  for (let n = 0; n < count; n += 1) {
    const id = `execute_code_${n}`;
    waiting.set(id, true);
    socket.write(JSON.stringify({ action: 'execute_code', params: { code: `print(${n})` }, id }));
  }
});
const finish = () => {
  console.log(JSON.stringify({ resolved, unparsed }));
  socket.destroy();
  process.exit(0);
};
// for a fault only: a busy machine takes its time
setTimeout(finish, 30_000);
socket.on('data', (chunk) => {
  let reply;
  try {
    reply = JSON.parse(chunk.toString());
  } catch {
    unparsed += 1;
    return;
  }
  if (reply.id && waiting.delete(reply.id)) resolved += 1;
  if (waiting.size === 0) finish();
});
