// Renders the React component of deploy/clients, compiled beside this file, and uses it as somebody at a screen does.
// Argument: the address it is to use.

import { JSDOM } from "jsdom";

const page = new JSDOM('<main id="root"></main>', { url: "http://localhost:5173/", pretendToBeVisual: true });
globalThis.window = page.window;
globalThis.document = page.window.document;
// later Nodes have one of their own
globalThis.navigator ??= page.window.navigator;
const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const { Assistant } = await import("./Assistant.js");

/** Waits for something to be shown; who runs this has the patience. */
async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
}

const find = (selector) => document.querySelector(selector);
const root = createRoot(document.getElementById("root"));
root.render(createElement(Assistant, { address: process.argv[2] }));
await until(() => find("[role=status]")?.textContent === "connected");
await until(() => find("ul")?.textContent.includes("command: running"));
console.log([...document.querySelectorAll("li")].map((line) => line.textContent).join(", "));

/** Types into the line, as React hears of it. */
async function run(command) {
  const set = Object.getOwnPropertyDescriptor(page.window.HTMLInputElement.prototype, "value").set;
  set.call(find("input"), command);
  find("input").dispatchEvent(new page.window.Event("input", { bubbles: true }));
  await until(() => !find("button").disabled);
  find("button").click();
}

await run("calculate 6*7");
await until(() => find("pre")?.textContent.includes("42"));
console.log(find("pre").textContent.replaceAll(/\s+/g, " "));
await until(() => find("progress")?.value === 100);
await run("calculate 6*");
await until(() => find("[role=alert]"));
console.log(find("[role=alert]").textContent);
root.unmount();
process.exit(0);
