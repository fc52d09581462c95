// The landing page in a browser's document: prints its state and the spaces it lists once it lists those that are named.
// Arguments: the gateway's address, then spaces.

import { createRequire } from "node:module";

const require = createRequire(`${process.env.CAUSEWAY_NODE}/package.json`);
const { JSDOM } = require("jsdom");
const [address, ...wanted] = process.argv.slice(2);

const html = await (await fetch(address)).text();
const options = {
  url: address,
  runScripts: "dangerously",
  // the document has no fetch of its own
  beforeParse: (window) => { window.fetch = (path) => fetch(new URL(path, address)); },
};
const page = new JSDOM(html, options);
const { document } = page.window;

const listed = () => [...document.querySelectorAll("#rooms dt")].map((name) => name.textContent);
// whoever runs this has the patience
while (!wanted.every((space) => listed().includes(space))) await new Promise((resolve) => setTimeout(resolve, 50));
console.log(JSON.stringify([document.getElementById("health").textContent, listed()]));
page.window.close();
process.exit(0);
