/* The open conversation: its prompts with their answers, and how there come to be more of them.
 * Answers belong to the server: whoever comes back finds them, and follows those that grow. */

import { Refused, getJSON, patiently } from "./api.js";
import { ACTIVE, follow, start, stop } from "./answers.js";
import * as composer from "./composer.js";
import * as transcript from "./transcript.js";

const READABLE = ["done", "stopped", "interrupted"]; // what a prompt can follow

// `view` is aborted when something else is opened: its requests end with it.
let view = new AbortController();
let conversation = null; // its id, null for a new one
/* What is shown, from the first prompt to the last:
 * {prompt (id), follows (response id or null), asked (a turn), row (of the answer), answer} */
let exchanges = [];
let running = null; // the id of the response that grows, "" until it has one, null for none
let onNew = () => null; // gets the id of a new conversation

export function whenNew(callback) {
  onNew = callback;
}

/* ---- Asking ---- */

/** Ask behind what is shown. Resolves with whether the server took it. */
export async function send(content) {
  return ask(content, lastReadable(), exchanges.length);
}

export function isRunning() {
  return running !== null;
}

export async function stopRunning() {
  try {
    await stop(running, view.signal);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    composer.showRunning(running);
    composer.notice(error.message);
  }
}

/** Put a prompt behind a response, in place of what the page shows from `index` on: what was
 *  said there stays on the server. */
async function ask(content, follows, index) {
  const restore = cut(index);
  const exchange = addExchange({ follows, content });
  const body = { prompt: content };
  if (conversation !== null) body.follows = follows; // else there is nothing to follow yet
  const address = conversation !== null ? `${addressInAPI()}prompts/` : "/chat/new/message/";
  return answer(exchange, address, body, () => {
    cut(index);
    restore();
  });
}

function edit(exchange, content) {
  return ask(content, exchange.follows, exchanges.indexOf(exchange));
}

/** One more answer to the last prompt; the server keeps the one before. */
function again(exchange) {
  const before = { ...exchange };
  const restore = transcript.cutFrom(exchange.answer.root);
  return answer(exchange, `/api/prompts/${exchange.prompt}/responses/`, {}, () => {
    exchange.answer.root.remove();
    Object.assign(exchange, before);
    restore();
  });
}

/** Start an answer and show it to its end; `undo` where the server took nothing. */
async function answer(exchange, address, body, undo) {
  const mine = view;
  composer.notice();
  exchange.answer = transcript.addAnswer(() => again(exchange));
  run("");
  composer.focus(); // what was pressed may be gone
  try {
    const row = await start(address, body, composer, mine.signal);
    exchange.prompt = row.prompt;
    if (conversation === null) onNew((conversation = row.conversation));
    await show(exchange, row, mine);
    return true;
  } catch (error) {
    if (mine.signal.aborted) return true; // something else is shown; nothing to say here
    if (!(error instanceof Refused)) throw error;
    // As if it had not been asked, with the reason beside it.
    undo();
    if (!exchanges.length) transcript.showEmpty();
    composer.notice(error.message);
    return false;
  } finally {
    if (mine === view) run(null);
  }
}

/** Show a response of an exchange to its end. */
async function show(exchange, row, mine) {
  const text = (whole) => {
    if (whole) composer.queued(0);
    exchange.answer.show(whole);
  };
  exchange.row = row;
  if (ACTIVE.includes(row.status)) run(row.id);
  try {
    exchange.row = await follow(row, { ...composer, text }, mine.signal);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    exchange.row = { ...row, status: "failed", error: error.message }; // removed, or logged out
  }
  exchange.answer.end(exchange.row);
  if (mine === view) run(null);
}

function run(id) {
  running = id;
  composer.showRunning(id);
  transcript.setBusy(id !== null);
}

function lastReadable() {
  const rows = exchanges.map(({ row }) => row).filter((row) => READABLE.includes(row?.status));
  return rows.at(-1)?.id ?? null;
}

/* ---- Opening ---- */

/** Show this conversation, and follow its last answer if it grows; null for a new one. */
export async function open(id) {
  view.abort();
  view = new AbortController();
  conversation = id;
  exchanges = [];
  run(null);
  composer.notice();
  transcript.clear();
  composer.allow(false); // what is asked must follow what is there
  if (id === null) showNothing();
  else await load(view);
}

async function load(mine) {
  try {
    const { path } = await get(addressInAPI(), mine);
    if (!path.length) showNothing();
    let exchange = null;
    for (const turn of path) {
      if (turn.prompt) exchange = addExchange({ ...turn, follows: exchange?.row.id ?? null });
      else await showStored(exchange, turn, turn === path.at(-1), mine);
    }
  } catch (error) {
    if (mine.signal.aborted) return;
    if (!(error instanceof Refused)) throw error;
    composer.notice(error.message);
  }
}

async function showStored(exchange, { response, content, status, omitted }, last, mine) {
  exchange.answer = transcript.addAnswer(exchange.asked && (() => again(exchange)));
  exchange.row = { id: response, text: content, status, omitted };
  exchange.answer.show(content);
  if (!ACTIVE.includes(status) && (last || status !== "done")) {
    exchange.row = await get(`/api/responses/${response}/`, mine); // only it says why it ended
  }
  if (last) {
    transcript.toEnd();
    composer.allow(true);
  }
  await show(exchange, exchange.row, mine);
}

function showNothing() {
  transcript.showEmpty();
  composer.allow(true);
}

function addressInAPI() {
  return `/api/conversations/${encodeURIComponent(conversation)}/`;
}

function get(address, { signal }) {
  return patiently(() => getJSON(address, signal), { onAway: composer.away, signal });
}

/* ---- The list of exchanges ---- */

function addExchange({ prompt = null, follows, content, role = "user" }) {
  const exchange = { prompt, follows, asked: null, row: null, answer: null };
  if (role === "user" && content) {
    exchange.asked = transcript.addPrompt(content, (text) => edit(exchange, text));
  } else if (content) {
    exchange.asked = transcript.addTurn(role, content);
  }
  exchanges.push(exchange);
  return exchange;
}

/** Take exchanges off the page; what comes back puts them in again. */
function cut(index) {
  const gone = exchanges.splice(index);
  const restore = transcript.cutFrom((gone[0]?.asked ?? gone[0]?.answer)?.root);
  return () => {
    exchanges.push(...gone);
    restore();
  };
}
