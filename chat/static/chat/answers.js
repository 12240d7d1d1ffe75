/* How an answer reaches the page: asked for once, followed to its end whatever the
 * connection does. Nothing here knows about the page; pieces go to `onPiece`. */

// Addresses above this length are cut or refused by some proxies: such a prompt is posted.
const LONGEST_ADDRESS = 4000;
const RETRY_AFTER = 1000; // milliseconds between attempts to go on with a broken stream

export const ACTIVE = ["queued", "streaming"];

/** The server took nothing: the prompt can be sent again as it is. */
export class Refused extends Error {}

/** JSON from our own API. Throws Refused with the server's sentence. */
export async function getJSON(address, signal) {
  return (await request(address, { signal })).json();
}

/** Ask, and follow the answer: resolves with `done`'s data, throws the reason otherwise.
 *  question: {prompt, conversation (id or null), known (message ids already shown), token}
 *  onPiece: gets {message_id, text}, and `whole` where the text replaces what came before. */
export function ask(question, onPiece, signal) {
  const query = new URLSearchParams({ prompt: question.prompt });
  if (question.conversation) query.set("conversation", question.conversation);
  const address = `/sendMessage?${query}`;
  if (address.length > LONGEST_ADDRESS) return post(question, onPiece, signal);
  return listen(address, question, onPiece, signal);
}

/** Follow a response that exists, from its beginning. */
export function follow(messageId, onPiece, signal) {
  onPiece({ message_id: messageId, text: "", whole: true });
  return resume({ id: `${messageId}:0` }, onPiece, signal);
}

function listen(address, question, onPiece, signal) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(address);
    let messageId = null;
    signal.addEventListener("abort", () => {
      source.close(); // the server goes on; only we stop looking
      reject(signal.reason);
    });
    const take = ({ type, data }) => {
      const event = { name: type, data: JSON.parse(data) };
      messageId = event.data.message_id;
      onPiece(pieceOf(event));
      if (!isTerminal(event)) return;
      source.close(); // or the browser would connect again
      resolve(conclude(event));
    };
    const broken = () => {
      const refused = source.readyState === EventSource.CLOSED;
      // With an id seen, the browser comes back with Last-Event-ID and the server goes on.
      if (messageId && !refused) return;
      source.close();
      if (messageId) resolve(settled(messageId, onPiece, signal));
      // EventSource hides the reason of a refusal. Nothing was stored, so a POST may ask.
      else if (refused) resolve(post(question, onPiece, signal));
      // Without an id a reconnect would ask a second time: look for what the first one did.
      else resolve(recover(question, onPiece, signal));
    };
    source.addEventListener("message", take);
    source.addEventListener("done", take);
    // The server's own event `error` has data; the browser's, about the connection, has none.
    source.addEventListener("error", (event) => (event.data ? take(event) : broken()));
  });
}

async function post(question, onPiece, signal) {
  const address = question.conversation
    ? `/api/conversations/${question.conversation}/prompts/`
    : "/chat/new/message/";
  const response = await request(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRFToken": question.token },
    body: JSON.stringify({ prompt: question.prompt, stream: true }),
    signal,
  });
  const position = { id: null };
  const end = await read(response, position, onPiece, signal);
  if (end) return conclude(end);
  if (position.id) return resume(position, onPiece, signal);
  return recover(question, onPiece, signal);
}

/** The connection broke before anything came: was the prompt stored all the same? */
async function recover(question, onPiece, signal) {
  const query = new URLSearchParams({ page_size: 1 });
  if (question.conversation) query.set("conversation", question.conversation);
  const [newest] = (await getJSON(`/chat/get/messages/?${query}`, signal)).results;
  const ours = newest?.prompt === question.prompt && !question.known.has(newest.message_id);
  if (!ours) throw new Refused("The connection broke before the prompt arrived. Send it again.");
  return follow(newest.message_id, onPiece, signal);
}

/** Go on behind `position.id` until the end; a GET with Last-Event-ID never starts anything. */
async function resume(position, onPiece, signal) {
  for (;;) {
    const headers = { "Last-Event-ID": position.id };
    const response = await request("/sendMessage", { headers, signal });
    if (response.status === 204) return settled(position.id.split(":")[0], onPiece, signal);
    const end = await read(response, position, onPiece, signal);
    if (end) return conclude(end);
    await pause(RETRY_AFTER, signal);
  }
}

/** The end of a stream whose last event was lost: the row has it. */
async function settled(messageId, onPiece, signal) {
  const row = await getJSON(`/api/responses/${messageId}/`, signal);
  if (ACTIVE.includes(row.status)) return follow(messageId, onPiece, signal);
  onPiece({ message_id: messageId, text: row.text, whole: true });
  if (row.error) throw new Error(row.error);
  return { message_id: messageId, finish_reason: row.finish_reason };
}

/** Read events up to the terminal one and return it; null when the stream broke before. */
async function read(response, position, onPiece, signal) {
  try {
    for await (const event of events(response)) {
      position.id = event.id ?? position.id;
      if (!event.data) continue; // the opening: an id alone, so that a lost stream has a name
      onPiece(pieceOf(event));
      if (isTerminal(event)) return event;
    }
  } catch (error) {
    const network = error instanceof TypeError && !signal.aborted;
    if (!network) throw error;
  }
  return null;
}

const isTerminal = (event) => event.name === "done" || event.name === "error";

// Terminal events name their response too, which matters when no text came before.
const pieceOf = ({ data }) => ({ message_id: data.message_id, text: data.text ?? "" });

async function conclude({ name, data }) {
  if (name === "error") throw new Error(data.detail);
  return data;
}

/** The events of a stream of ours: one line for each field, ": " behind its name. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop(); // an event ends with an empty line; this one has not ended yet
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => line.split(/: (.*)/s)));
      const data = fields.data && JSON.parse(fields.data);
      yield { name: fields.event, id: fields.id, data };
    }
  }
}

async function request(address, options) {
  let response;
  try {
    response = await fetch(address, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Refused("The server cannot be reached.");
  }
  if (response.ok) return response;
  throw new Refused(await sentence(response));
}

/** What a problem document (RFC 9457) says; a status where the answer is none. */
async function sentence(response) {
  if (response.status === 401) return "You are logged out. Reload the page to log in again.";
  try {
    return (await response.json()).detail;
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => reject(signal.reason));
  });
}
