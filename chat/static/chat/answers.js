/* How an answer reaches the page: started once, followed to its end whatever the connection
 * does. The server makes it without us; we only look. Nothing here knows about the page. */

import { Unreachable, backOff, getJSON, patiently, post } from "./api.js";

export const ACTIVE = ["queued", "streaming"];
const TRIES = 6; // half a minute: somebody waits in front of the page

/** Start an answer; resolves with its id as soon as it has one. Throws Refused, Unreachable.
 *  body: goes to `address`. See `follow` for `on`. */
export async function start(address, body, on, signal) {
  const headers = { "Idempotency-Key": keyFor(address, body) };
  const begin = async () => {
    const stream = await post(address, { ...body, stream: true }, { headers, signal });
    return firstId(stream, signal);
  };
  // The key makes a second attempt safe: it joins what the first one began.
  const id = await patiently(begin, { onAway: on.away, signal, tries: TRIES });
  unanswered = {};
  return id;
}

/** The row of a response, as soon as the server can be reached. Throws Refused. */
export function read(id, on, signal) {
  return patiently(() => getJSON(`/api/responses/${id}/`, signal), { onAway: on.away, signal });
}

/** Show what a response has, follow the rest while the tab can be seen, resolve with how it ended.
 *  row: {id, status, text, …} as the API has it; what comes back has the same fields.
 *  on: {text(all of it so far), queued(how many are ahead), away(whether the server is)} */
export async function follow(row, on, signal) {
  const reader = { ...on, lost: false, shown: row.text };
  on.text(reader.shown);
  for (let tried = 1; ACTIVE.includes(row.status); tried += 1) {
    await seen(signal);
    const before = reader.shown;
    const done = await listen(row.id, reader, signal);
    // What came without a break is complete. Otherwise, for a reason or for calls, ask the row.
    if (done && !reader.lost && done.finish_reason !== "tool_calls") {
      return { ...row, ...outcome(done), text: reader.shown };
    }
    row = await read(row.id, on, signal);
    if (reader.shown !== before) tried = 1;
    if (!ACTIVE.includes(row.status)) on.text(row.text);
    else if (!document.hidden) await backOff(tried, signal);
  }
  return row;
}

/** End it where it is; whoever follows it hears `done`. */
export function stop(id) {
  return post(`/api/responses/${id}/stop`, {});
}

/** Resolves when the tab can be seen. Over HTTP/1.1 a browser has six connections to a server, for
 *  all its tabs together: what nobody looks at must hold none of them. */
function seen(signal) {
  return new Promise((resolve, reject) => {
    const look = () => document.hidden || resolve();
    document.addEventListener("visibilitychange", look, { signal });
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    look();
  });
}

/** One EventSource until the end, or until the tab is hidden: resolves with `done`'s data, or null
 *  when only the row can tell. While the server is away the browser itself comes back with its
 *  Last-Event-ID. */
function listen(id, reader, signal) {
  // The cursor counts characters as Unicode does; `length` would count most emoji twice.
  const after = [...reader.shown].length;
  const source = new EventSource(`/api/responses/${id}/events?after=${after}`);
  return new Promise((resolve, reject) => {
    const end = (result) => {
      source.close(); // or the browser would connect again
      document.removeEventListener("visibilitychange", leave);
      resolve(result);
    };
    const leave = () => {
      if (!document.hidden) return;
      reader.lost = true;
      end(null);
    };
    document.addEventListener("visibilitychange", leave);
    signal.addEventListener("abort", () => (end(null), reject(signal.reason)), { once: true });
    source.addEventListener("open", () => reader.away(false));
    source.addEventListener("queued", ({ data }) => reader.queued(JSON.parse(data).position));
    source.addEventListener("message", ({ data }) => {
      reader.shown += JSON.parse(data).text;
      reader.text(reader.shown);
    });
    source.addEventListener("done", ({ data }) => end(JSON.parse(data)));
    source.addEventListener("error", (event) => {
      // The server's own event `error` has data; the browser's, about the connection, has none.
      if (event.data) return end(null);
      reader.lost = true;
      reader.away(true);
      // Refused (an HTTP error), or 204: everything was read.
      if (source.readyState === EventSource.CLOSED) end(null);
    });
  });
}

const outcome = ({ finish_reason, omitted }) => ({
  finish_reason,
  omitted,
  status: finish_reason === "cancelled" ? "stopped" : "done",
});

/** The id that an event stream opens with; the rest of the stream is left to `follow`. */
async function firstId(stream, signal) {
  const reader = stream.body.pipeThrough(new TextDecoderStream()).getReader();
  let head = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      head += value ?? "";
      const id = /^id: ([0-9a-f]{32}):/m.exec(head);
      if (id) return id[1];
      if (done) break;
    }
  } catch {
    signal.throwIfAborted();
  } finally {
    reader.cancel().catch(() => null);
  }
  throw new Unreachable();
}

// The request that was sent last and got no answer: sent again, it keeps its key.
let unanswered = {};

function keyFor(address, body) {
  const request = JSON.stringify([address, body]);
  if (unanswered.request !== request) {
    // crypto.randomUUID is only there on HTTPS and localhost.
    const key = [...crypto.getRandomValues(new Uint32Array(4))].join("-");
    unanswered = { request, key };
  }
  return unanswered.key;
}
