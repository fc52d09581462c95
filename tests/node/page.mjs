// The page of deploy/clients in a browser's document with real sockets: presses its button, prints what it shows, ends
// when it has come back to a gateway that was away. Arguments: the page, the address it is to use.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.CAUSEWAY_NODE}/package.json`);
const { JSDOM } = require("jsdom");
const [file, address] = process.argv.slice(2);

// a page of a web server on this machine, as the example says: what the gateway sees of it is its origin
const url = `http://localhost:8001/voice.html?address=${encodeURIComponent(address)}`;
const page = new JSDOM(readFileSync(file, "utf8"), { url, runScripts: "dangerously" });
const { document } = page.window;

/** Waits for something to be shown; who runs this has the patience. */
async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}

const shown = () => [...document.querySelectorAll("#events li b")].map((name) => name.textContent);
const status = document.getElementById("status");
await until(() => status.textContent === "connected");
document.getElementById("run").click();
await until(() => shown().includes("latency_trace"));
console.log(JSON.stringify(shown()));
// whoever runs this takes the gateway away and brings it back, with something said meanwhile
await until(() => shown().includes("meanwhile"));
console.log(JSON.stringify(shown()));
page.window.close();
process.exit(0);
