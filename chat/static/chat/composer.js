/* What stands below the transcript: the field, its one button, and a line about what goes on. */

import { edits, fit } from "./transcript.js";

const $ = (id) => document.getElementById(id);
// Somebody else may log in in the same tab.
const UNSENT = `unsent of ${document.querySelector(".user").textContent}`;
let underWay = ""; // what the server may not have heard yet
let waiting = 0; // how many times Send was pressed and nothing is sent yet
const status = { ahead: 0, away: false }; // in the queue; whether the server cannot be reached

/** What is written outlives this page: to reload it is what whoever is logged out is told. */
export function keepUnsent() {
  window.addEventListener("pagehide", () => {
    const written = [underWay, ...edits(), $("prompt").value];
    sessionStorage.setItem(UNSENT, written.filter(Boolean).join("\n"));
  });
  const kept = sessionStorage.getItem(UNSENT);
  sessionStorage.removeItem(UNSENT);
  if (kept) giveBack(kept); // there may be more by now
}

export function setPrompt(text) {
  $("prompt").value = text;
  fit($("prompt"));
}

/** Put a text that was not asked back into the field, before what was typed there meanwhile. */
export function giveBack(text) {
  setPrompt([text, $("prompt").value].filter(Boolean).join("\n"));
}

/** Cut turns off the page; what was being written in them and not asked is in the field again. */
export function rescue(cut) {
  const written = edits();
  const restore = cut();
  written.slice(edits().length).forEach(giveBack);
  return restore;
}

export function keep(text) {
  underWay = text;
}

/** For who writes here next; who writes elsewhere meanwhile is left there. */
export function focus() {
  if (!document.activeElement?.value) $("prompt").focus();
}

/** Whether something can be asked at all. */
export function allow(allowed) {
  $("send").disabled = !allowed;
}

/** Resolves as a promise that what shall be sent waits for; the button is busy until then. */
export async function waitFor(promise) {
  showWaiting(1);
  try {
    return await promise;
  } finally {
    showWaiting(-1);
  }
}

function showWaiting(more) {
  waiting += more;
  $("send").ariaBusy = String(waiting > 0);
}

/** While an answer grows there is Stop in place of Send; `id` is "" before the answer has one. */
export function showRunning(id) {
  $("send").hidden = id !== null;
  $("stop").hidden = id === null;
  $("stop").disabled = !id;
  if (id === null) showStatus({ ahead: 0, away: false });
}

export function queued(position) {
  showStatus({ ahead: position });
}

export function away(isAway) {
  showStatus({ away: isAway });
}

/** Both are told by whoever happens to know, in any order: neither takes the other back. */
function showStatus(news) {
  Object.assign(status, news);
  const waiting = status.ahead ? `${status.ahead} ahead of you` : "";
  $("status").textContent = status.away ? "Reconnecting …" : waiting;
}

/** Why something was not done; nothing takes it back, unless it is only so until there is a model. */
export function notice(text = "", untilReady = false) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
  $("notice").className = untilReady ? "until-ready" : "";
}

/** The model is there: what was refused for want of it can be asked now. */
export function ready() {
  if ($("notice").className !== "until-ready") return;
  notice("The model is ready now.");
  $("notice").className = "good";
}
