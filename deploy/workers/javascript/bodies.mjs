// Bodies too large for one message, for a worker to copy: they go through the object store, and a header says where.
import { createHash, randomUUID } from "node:crypto";

const BUCKET = "GW_BODIES";
// what the headers beside a body may take of a message
const HEADERS = 4096;
const PATIENCE = 60_000;

/** A failure told to the client: a number of the contract and a sentence that says what to do. */
export class Trouble extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
  }
}

function within(work) {
  let late;
  const over = new Promise((_, reject) => {
    late = setTimeout(() => reject(new Error("no answer in time")), PATIENCE);
  });
  return Promise.race([work, over]).finally(() => clearTimeout(late));
}

function described(body) {
  return `size=${body.length};sha256=${createHash("sha256").update(body).digest("hex")}`;
}

/** A text as it travels: itself, or nothing and the header that refers to it. */
export async function pack(client, text) {
  const body = new TextEncoder().encode(text);
  if (body.length <= client.info.max_payload - HEADERS) return [body, {}];
  const name = randomUUID();
  try {
    const put = async () => (await client.jetstream().views.os(BUCKET)).putBlob({ name }, body);
    await within(put());
  } catch (error) {
    throw new Trouble(413, `${body.length} bytes need the object store, which does not take them: ${error.message}`);
  }
  return [new Uint8Array(), { "Gw-Body": `object:${BUCKET}/${name};${described(body)}` }];
}

/** The text of a message, from wherever it is. */
export async function unpack(client, message) {
  const reference = message.headers?.get("Gw-Body");
  if (!reference) return message.string();
  const [place, ...told] = reference.split(";");
  const [bucket, name] = place.replace("object:", "").split("/");
  if (bucket !== BUCKET) throw new Trouble(400, `large bodies are in ${BUCKET}, not in ${bucket}`);
  let body;
  try {
    const get = async () => (await client.jetstream().views.os(bucket)).getBlob(name);
    body = await within(get());
  } catch (error) {
    throw new Trouble(500, `the parameters cannot be fetched: ${error.message}`);
  }
  if (!body || described(body) !== told.join(";")) throw new Trouble(500, "the parameters are gone or damaged");
  return new TextDecoder().decode(body);
}
