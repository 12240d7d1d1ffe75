/* Ask an llmsite and print the answer while it comes: `node ask.mjs PROMPT [IDEMPOTENCY_KEY]`.
 * Web pages import `ask`, as other-origin.html does.
 *
 * LLMSITE_URL and LLMSITE_KEY say where, and in whose name. Node 18 or newer and nothing else. Ends
 * with 0 when the answer is whole, 1 when it failed or the server stayed away, 2 when the server
 * refused the request. */

const SILENCE = 45_000; // milliseconds; a connection is dead: the server says something every 15 s
const PATIENCE = 600_000; // of waiting without a piece of text; a model may take minutes to load
const LATER = [409, 429, 502, 503, 504]; // the same request may succeed later

/** Asking again does not help. status: 1 the response failed, 2 the request was refused. */
export class Failed extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Give each piece of the answer to `show` once; resolves with how it ended. Throws Failed.
 *  name: the idempotency key. lost: hears why a connection was lost. */
export async function ask({ url, key, prompt, name = aName(), show, lost = console.warn }) {
  let cursor = ""; // the id of the last event that came whole: RESPONSE:CHARACTERS
  let [tried, waited] = [0, 0];
  const server = url.replace(/\/+$/, "");
  for (;;) {
    const silence = new AbortController();
    let [wait, why] = [Math.min(10_000, 250 * (1 + tried ** 2)), "the stream was cut"];
    try {
      const [path, options] = cursor ? comeBack(cursor) : begin(prompt, name);
      const headers = { Authorization: `Bearer ${key}`, ...options.headers };
      const request = { ...options, headers, signal: silence.signal };
      const answer = await heard(silence, fetch(server + path, request));
      if (LATER.includes(answer.status)) {
        why = `status ${answer.status}`;
        const after = answer.headers.get("Retry-After");
        if (/^\d+$/.test(after)) wait = Math.max(wait, 1000 * after);
      } else if (!answer.ok) {
        const problem = await answer.json().catch(() => ({}));
        throw new Failed(`Refused with ${answer.status}: ${problem.detail}`, 2);
      } else {
        for await (const event of events(answer.body, silence)) {
          cursor = event.id || cursor;
          if (event.name === "message") {
            show(JSON.parse(event.data).text);
            tried = waited = 0;
          } else if (event.name === "done") return JSON.parse(event.data).finish_reason;
          else if (event.name === "error") {
            const { code, detail } = JSON.parse(event.data);
            // `internal_error` is of the stream; the response itself may be well.
            if (code !== "internal_error") throw new Failed(detail, 1);
          }
        }
      }
    } catch (error) {
      if (error instanceof Failed) throw error;
      why = error.cause?.message ?? error.message;
    } finally {
      silence.abort(); // or what is left of the stream would hold its connection
    }
    tried += 1;
    waited += wait;
    const later = `${why}; the same with the key ${name} goes on later`;
    if (waited > PATIENCE) throw new Failed(later, 1);
    lost(`[${why}; again in ${wait / 1000} s]`);
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

/** Ask, again too: the name joins what was begun. */
function begin(prompt, name) {
  const headers = { "Content-Type": "application/json", "Idempotency-Key": name };
  const body = JSON.stringify({ prompt, stream: true });
  return ["/chat/new/message/", { method: "POST", headers, body }];
}

function comeBack(cursor) {
  const [response, after] = cursor.split(":");
  return [`/api/responses/${response}/events?after=${after}`, {}];
}

/** Each event that comes whole as {name, data, id}: what is cut off is nothing. */
async function* events(body, silence) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader(); // no character is torn
  let [rest, event] = ["", { name: "message", data: "" }];
  for (;;) {
    const { value, done } = await heard(silence, reader.read());
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, data] = /^([^:]*):? ?(.*)$/.exec(line);
      if (!line) {
        if (event.data) yield event;
        event = { name: "message", data: "" };
      } else if (field === "event") event.name = data;
      else if (field === "data") event.data += data + "\n";
      else if (field === "id") event.id = data;
    }
  }
}

/** What is waited for, unless nothing comes for too long. */
async function heard(silence, waited) {
  const alarm = setTimeout(() => silence.abort(new Error("silence")), SILENCE);
  return waited.finally(() => clearTimeout(alarm));
}

const aName = () => `${Date.now()}-${Math.random()}`;

if (globalThis.process?.argv[1]?.endsWith("ask.mjs")) {
  const [prompt, name] = process.argv.slice(2);
  const { LLMSITE_URL: url = "http://127.0.0.1:8000", LLMSITE_KEY: key } = process.env;
  const show = (text) => process.stdout.write(text);
  try {
    const ended = await ask({ url, key, prompt, name, show });
    console.log();
    if (ended !== "stop") console.warn(`[${ended}]`); // `length`: max_tokens were not enough
  } catch (error) {
    console.error(`\n${error.message}`);
    process.exitCode = error.status ?? 1;
  }
}
