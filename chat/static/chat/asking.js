/* How there come to be more prompts and answers in the open conversation. Answers belong to the
 * server: whoever comes back finds them, and follows those that grow. */

import { Refused } from "./api.js";
import { ACTIVE, follow, read, start, stop } from "./answers.js";
import * as composer from "./composer.js";
import * as exchanges from "./exchanges.js";
import { watchModel } from "./model.js";
import { addressInAPI, opened } from "./opened.js";
import { away } from "./reading.js";
import { current, ended, run } from "./running.js";
import { toEnd } from "./scrolling.js";
import * as transcript from "./transcript.js";
import * as versions from "./versions.js";

// Why the server takes nothing now, though it may in a moment: docs/errors.md.
const UNTIL_READY = ["model_loading", "model_failed", "server_stopping"];
let stopping = null;
let onNew = () => null; // gets a new conversation's id, or null to read what there is

export function whenNew(callback) {
  onNew = callback;
}

/** Ask behind what is shown; what the server did not take is in the field again. */
export async function send(content) {
  const taken = await ask(content, exchanges.lastReadable(), exchanges.count());
  if (!taken) composer.giveBack(content);
}

/** Resolves when an answer that was told to stop has ended. */
export function stopped() {
  return stopping;
}

export async function stopRunning() {
  stopping = ended();
  try {
    await stop(current()); // also for whoever opens something else meanwhile
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
  const restore = composer.rescue(() => exchanges.cut(index));
  const exchange = exchanges.add({ follows, content }, edit);
  const body = { prompt: content };
  if (opened.id !== null) body.follows = follows; // else there is nothing to follow yet
  const address = opened.id !== null ? `${addressInAPI()}prompts/` : "/chat/new/message/";
  composer.keep(content);
  return answer(exchange, address, body, () => {
    exchanges.cut(index);
    restore();
  });
}

/** Ask a prompt anew. Resolves with whether the server took it. */
export async function edit(exchange, content) {
  const mine = opened.view;
  const taken = await ask(content, exchange.follows, exchanges.indexOf(exchange));
  if (!taken && mine.signal.aborted) composer.giveBack(content); // its editor is gone
  return taken;
}

/** One more answer to the last prompt; the server keeps the one before. */
export function again(exchange) {
  const before = { ...exchange };
  const restore = transcript.cutFrom(exchange.answer.root);
  return answer(exchange, `/api/prompts/${exchange.prompt}/responses/`, {}, () => {
    exchange.answer.root.remove();
    Object.assign(exchange, before);
    restore();
  });
}

/** Start an answer and show it to its end; `undo` where the server took nothing. Resolves with
 *  whether it took it, as far as is known. */
async function answer(exchange, address, body, undo) {
  const mine = opened.view;
  const isNew = opened.id === null;
  composer.notice();
  exchange.answer = transcript.addAnswer(() => again(exchange));
  toEnd(); // whoever asks wants to see it, wherever they were reading
  run("");
  composer.focus(); // what was pressed may be gone
  let id = null;
  try {
    id = await start(address, body, { away }, mine.signal).finally(() => composer.keep(""));
    const row = await read(id, { away }, mine.signal);
    Object.assign(exchange, { prompt: row.prompt, row });
    opened.newest = row.id;
    versions.add(row, exchange.follows);
    exchanges.markVersions();
    if (isNew) onNew((opened.id = row.conversation));
    await show(exchange, row, mine);
    return true;
  } catch (error) {
    if (mine.signal.aborted) {
      if (isNew) onNew(null);
      // Something else is shown, and nothing asks this again by itself. Without an id nobody
      // knows whether the server heard it.
      if (id === null) composer.notice("What was sent last may not have reached the server.");
      return id !== null;
    }
    run(null);
    if (!(error instanceof Refused)) throw error;
    // As if it had not been asked, with the reason beside it.
    undo();
    if (id !== null) onNew(null); // it was, and only its row could not be read
    if (!exchanges.count()) transcript.showEmpty();
    composer.notice(error.message, UNTIL_READY.includes(error.code));
    watchModel(); // it may be the reason
    return id !== null;
  }
}

/** Show a response of an exchange to its end. */
export async function show(exchange, row, mine) {
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
  if (mine === opened.view) run(null);
}
