// Real browsers for the tests: one JSON command a line on standard input, one JSON answer a line on standard output.
//
// Chromium draws by software: no machine these tests run on has to have a graphics card.

import { createRequire } from "node:module";
import readline from "node:readline";

const require = createRequire(`${process.env.CAUSEWAY_NODE_MODULES}/`);
const { chromium } = require("playwright-core");

const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--use-angle=swiftshader",
  "--enable-unsafe-swiftshader",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];
// what a page does takes less, and the tests wait longer than this for an answer
const PATIENCE = 600 * (process.env.E2E_PATIENCE ?? 120);

let launched;
const pages = new Map();

// each page in a context of its own, as two people at two machines; browsers of their own would only cost memory
async function open({ name, url, width = 900, height = 480 }) {
  launched ??= await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
  const context = await launched.newContext({ viewport: { width, height } });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const told = { errors: [], console: [] };
  page.on("pageerror", (error) => told.errors.push(String(error.stack ?? error)));
  page.on("console", (message) => {
    const line = `${message.type()}: ${message.text()}`;
    // of a console's lines only what the page itself calls an error is one
    (message.type() === "error" ? told.errors : told.console).push(line);
  });
  page.on("response", (answer) => {
    if (answer.status() >= 400) told.errors.push(`${answer.status()} ${answer.url()}`);
  });
  pages.set(name, { page, told, context });
  await page.goto(url, { waitUntil: "load" });
  // the viewer has drawn its logo
  await page.waitForSelector("canvas");
  return page.title();
}

// How many of the canvas's points have a colour of their own kind: what a person would see at a glance.
async function colours({ name, box }) {
  const { page } = pages.get(name);
  const place = box ?? (await page.locator("canvas").first().boundingBox());
  const picture = await page.screenshot({ clip: place });
  return page.evaluate(count, picture.toString("base64"));
}

// Runs inside the page, whose decoder is at hand.
async function count(base64) {
  const image = new Image();
  image.src = `data:image/png;base64,${base64}`;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height];
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const { data } = pen.getImageData(0, 0, image.width, image.height);
  const found = { all: data.length / 4, red: 0, green: 0, blue: 0, distinct: 0 };
  const seen = new Set();
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue] = [data[at], data[at + 1], data[at + 2]];
    seen.add((red << 16) | (green << 8) | blue);
    if (red > 2 * green && red > 2 * blue && red > 60) found.red += 1;
    if (green > 2 * red && green > 2 * blue && green > 60) found.green += 1;
    if (blue > 2 * red && blue > 2 * green && blue > 60) found.blue += 1;
  }
  found.distinct = seen.size;
  return found;
}

const commands = {
  open,
  colours,
  count: ({ name, base64 }) => pages.get(name).page.evaluate(count, base64),
  evaluate: ({ name, code }) => pages.get(name).page.evaluate(code),
  // names in the tree as they are read, without the dot of their colour
  tree: async ({ name }) => {
    const labels = await pages.get(name).page.locator(".tv-node-label").allInnerTexts();
    return labels.map((label) => label.replace("⚈", "").trim());
  },
  click: async ({ name, selector, ...options }) => {
    await pages.get(name).page.locator(selector).first().click(options);
  },
  mouse: async ({ name, steps }) => {
    const { mouse } = pages.get(name).page;
    for (const [what, ...rest] of steps) await mouse[what](...rest);
  },
  text: async ({ name, selector }) => {
    const seen = pages.get(name).page.locator(selector).locator("visible=true");
    return (await seen.allInnerTexts()).join("\n");
  },
  box: ({ name, selector }) => pages.get(name).page.locator(selector).first().boundingBox(),
  reload: async ({ name }) => {
    const { page } = pages.get(name);
    await page.reload({ waitUntil: "load" });
    await page.waitForSelector("canvas");
  },
  picture: async ({ name, path }) => {
    await pages.get(name).page.screenshot({ path });
  },
  has: async ({ name, selector }) => {
    return (await pages.get(name).page.locator(selector).locator("visible=true").count()) > 0;
  },
  complaints: ({ name }) => pages.get(name).told.errors.splice(0),
  close: async ({ name }) => {
    await pages.get(name).context.close();
    pages.delete(name);
  },
};

const lines = readline.createInterface({ input: process.stdin });
for await (const line of lines) {
  const { what, ...rest } = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await commands[what](rest)) ?? null };
  } catch (error) {
    const told = JSON.stringify(pages.get(rest.name)?.told);
    answer = { error: `${error.stack ?? error}\nthe page told: ${told}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await launched?.close();
