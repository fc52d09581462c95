// A scripting client in Node: code to Blender and its output back. Nothing to install: `node scripting.mjs [host [port]]`.
import net from "node:net";

const [host = "localhost", port = "9876"] = process.argv.slice(2);

/** Cuts what comes into JSON documents, which follow each other without anything between them. */
class Documents {
  text = "";
  at = 0;
  depth = 0;
  quoted = false;

  /** The documents that are complete with this piece. */
  take(piece) {
    this.text += piece;
    const whole = [];
    for (; this.at < this.text.length; this.at += 1) {
      const letter = this.text[this.at];
      if (this.quoted) {
        if (letter === "\\") this.at += 1;
        else if (letter === '"') this.quoted = false;
      } else if (letter === '"') {
        this.quoted = true;
      } else if (letter === "{" || letter === "[") {
        this.depth += 1;
      } else if (letter === "}" || letter === "]") {
        this.depth -= 1;
        if (this.depth > 0) continue;
        whole.push(JSON.parse(this.text.slice(0, this.at + 1)));
        this.text = this.text.slice(this.at + 1);
        this.at = -1;
      }
    }
    return whole;
  }
}

const documents = new Documents();
const socket = net.connect(Number(port), host, () => {
  const request = { action: "execute_code", params: { code: "print('hello from Blender')" }, id: "1" };
  socket.write(JSON.stringify(request));
});
// answers are ASCII only, so no character is ever in two pieces
socket.setEncoding("ascii");
socket.on("data", (piece) => {
  for (const answer of documents.take(piece)) {
    console.log(JSON.stringify(answer));
    // an acknowledgement comes first, without the id
    if (answer.id === "1") socket.end();
  }
});
socket.on("error", (error) => {
  console.error(`no connection: ${error.message}`);
  process.exitCode = 1;
});
