/* The open conversation: its prompts with their answers, and how there come to be more of them.
 * Answers belong to the server: whoever comes back finds them, and follows those that grow. */

import { Refused, getJSON, patiently } from "./api.js";
import { ACTIVE, follow, start, stop } from "./answers.js";
import * as composer from "./composer.js";
import * as exchanges from "./exchanges.js";
import * as model from "./model.js";
import { current, ended, isRunning, run } from "./running.js";
import * as transcript from "./transcript.js";

const MISSING = "This conversation does not exist, or is not yours.";

// `view` is aborted when something else is opened: its requests end with it.
let view = new AbortController();
let conversation = null; // its id, null for a new one
let newest = null; // the id of its newest response, as far as the page knows
let stopping = null; // until the answer that was told to stop has ended
let rereading = null; // until it is known what other tabs have asked meanwhile
let onNew = () => null; // gets the id of a new conversation

export function whenNew(callback) {
  onNew = callback;
}

/* ---- Asking ---- */

/** Ask behind what is shown. Resolves with whether the server took it. */
export async function send(content) {
  return ask(content, exchanges.lastReadable(), exchanges.count());
}

/** Resolves when it is known what a prompt would follow, also right after Stop; with false when
 *  something else is open by then. */
export async function settled() {
  const mine = view;
  await stopping;
  if (!isRunning()) await rereading;
  return mine === view;
}

export async function stopRunning() {
  stopping = ended();
  try {
    await stop(current(), view.signal);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    stopping = null;
    run(current());
    composer.notice(error.message);
  }
}

/** Put a prompt behind a response, in place of what the page shows from `index` on: what was
 *  said there stays on the server. */
async function ask(content, follows, index) {
  const restore = exchanges.cut(index);
  const exchange = exchanges.add({ follows, content }, edit);
  const body = { prompt: content };
  if (conversation !== null) body.follows = follows; // else there is nothing to follow yet
  const address = conversation !== null ? `${addressInAPI()}prompts/` : "/chat/new/message/";
  return answer(exchange, address, body, () => {
    exchanges.cut(index);
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
  transcript.toEnd(); // whoever asks wants to see it, wherever they were reading
  run("");
  composer.focus(); // what was pressed may be gone
  try {
    const row = await start(address, body, { ...composer, away }, mine.signal);
    exchange.prompt = row.prompt;
    newest = row.id;
    if (conversation === null) onNew((conversation = row.conversation));
    await show(exchange, row, mine);
    return true;
  } catch (error) {
    if (mine.signal.aborted) return true; // something else is shown; nothing to say here
    run(null);
    if (!(error instanceof Refused)) throw error;
    // As if it had not been asked, with the reason beside it.
    undo();
    if (!exchanges.count()) transcript.showEmpty();
    composer.notice(error.message);
    model.watchModel(); // it may be the reason
    return false;
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
    exchange.row = await follow(row, { ...composer, text, away }, mine.signal);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    exchange.row = { ...row, status: "failed", error: error.message }; // removed, or logged out
  }
  exchange.answer.end(exchange.row);
  if (mine === view) run(null);
}

/* ---- Opening ---- */

/** Show this conversation, and follow its last answer if it grows; null for a new one. */
export async function open(id) {
  view.abort();
  view = new AbortController();
  conversation = id;
  newest = null;
  run(null);
  composer.notice();
  exchanges.clear();
  composer.allow(false); // what is asked must follow what is there
  if (id === null) showNothing();
  else await load(view);
}

async function load(mine) {
  try {
    const { path } = await get(addressInAPI(), mine);
    if (!path.length) showNothing();
    const growing = showPath(path, mine);
    transcript.toEnd();
    composer.allow(true);
    await growing;
  } catch (error) {
    refused(error, mine);
  }
}

/** Show what other tabs have made of the conversation meanwhile. */
export function reread() {
  rereading ??= lookAgain(view).finally(() => (rereading = null));
}

async function lookAgain(mine) {
  try {
    await ended();
    if (conversation === null || mine !== view) return;
    const { path } = await get(addressInAPI(), mine);
    const nothingNew = (path.at(-1)?.response ?? null) === newest;
    if (nothingNew || isRunning()) return;
    // Not awaited: an answer that grows is no longer part of looking.
    showPath(path, mine)?.catch((error) => refused(error, mine));
  } catch (error) {
    refused(error, mine);
  }
}

/** Show a path, of which some may be there already. Returns what resolves when an answer at its
 *  end has grown. */
function showPath(path, mine) {
  const turns = exchanges.ofPath(path);
  const same = exchanges.shared(turns);
  exchanges.cut(same);
  newest = path.at(-1)?.response ?? null;
  return turns.slice(same).map((turn) => showStored(turn, mine)).at(-1);
}

function showStored({ row, ...turn }, mine) {
  const exchange = exchanges.add(turn, edit);
  exchange.answer = transcript.addAnswer(exchange.asked && (() => again(exchange)));
  if (ACTIVE.includes(row.status)) return show(exchange, row, mine);
  exchange.row = row;
  exchange.answer.show(row.text);
  exchange.answer.end(row);
  return null;
}

function refused(error, mine) {
  if (mine.signal.aborted) return;
  if (!(error instanceof Refused)) throw error;
  const reason = error.status === 404 ? MISSING : error.message;
  if (error.status === 404 && !exchanges.count()) transcript.showMissing(reason);
  else composer.notice(reason);
}

function showNothing() {
  transcript.showEmpty();
  composer.allow(true);
}

function addressInAPI() {
  return `/api/conversations/${encodeURIComponent(conversation)}/`;
}

function get(address, { signal }) {
  return patiently(() => getJSON(address, signal), { onAway: away, signal });
}

function away(isAway) {
  composer.away(isAway);
  model.away(isAway);
}
