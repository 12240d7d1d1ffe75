/* The chat page: what happens when somebody presses something.
 *
 * The address names the open conversation, so that reload, back and a copied link work by
 * themselves.
 *
 *   api.js           requests, what can go wrong with them, when to try again
 *   answers.js       an answer: started once, followed to its end, stopped
 *   conversation.js  the open conversation: open, look again, other versions
 *   asking.js        the same: ask, again, edit, stop
 *   opened.js        which one it is
 *   conversations.js the list at the side
 *   exchanges.js     what is shown of it
 *   versions.js      the other versions of it
 *   reading.js       what it is read from
 *   running.js       the one answer that grows
 *   transcript.js    the turns on the page
 *   scrolling.js     where they are scrolled to
 *   prose.js         the text of an answer, with its code
 *   code.js          a block of code
 *   elements.js      what they are made of
 *   composer.js      the field below them
 *   model.js         the state of the model
 */

import { Refused } from "./api.js";
import * as asking from "./asking.js";
import { focus, keepUnsent, notice, ready, setPrompt, waitFor } from "./composer.js";
import * as conversation from "./conversation.js";
import * as conversations from "./conversations.js";
import { watchModel, whenReady } from "./model.js";
import { isRunning } from "./running.js";
import { fit, submitOnEnter } from "./transcript.js";

const PAUSE = 200; // milliseconds in which nobody types
let looking = null; // the timer of the next search
const narrow = matchMedia("(max-width: 48rem)"); // as in page.css: the list is a menu
const $ = (id) => document.getElementById(id);

async function send() {
  const content = $("prompt").value;
  if (!(await waitFor(conversation.settled()))) return;
  if ($("prompt").value !== content) return; // who wrote on has not said that this is all
  if (!content.trim() || isRunning() || $("send").disabled) return;
  setPrompt("");
  asking.send(content);
}

function stop() {
  $("stop").disabled = true;
  focus(); // the button is about to go
  asking.stopRunning();
}

/** Other tabs, and windows beside this one, may have gone on with the conversation. */
function lookAgain() {
  if (!document.hidden) conversation.reread();
}

/* ---- The address and the list ---- */

function opened() {
  return new URLSearchParams(location.search).get("conversation");
}

function open() {
  toggleMenu(false);
  markOpen();
  conversation.open(opened());
}

function goTo(address) {
  history.pushState(null, "", address);
  open();
}

function learn(id) {
  if (id === null) {
    conversation.reread();
    look();
    return;
  }
  // replaceState: the page must not open what it already shows.
  history.replaceState(null, "", conversations.addressOf(id));
  // The new one shall be seen, unless somebody is looking for another.
  if (document.activeElement !== $("search")) $("search").value = "";
  look();
}

function showTitle(id, title) {
  conversations.remember(id, title);
  markOpen();
}

/** Look for what is in the field: once somebody who types pauses. */
function lookSoon() {
  clearTimeout(looking);
  looking = setTimeout(look, PAUSE);
}

function look() {
  clearTimeout(looking);
  list(() => conversations.find($("search").value));
}

async function list(load = conversations.load) {
  try {
    await load();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    notice(error.message);
  }
  markOpen();
}

function markOpen() {
  const title = conversations.mark(opened());
  $("title").textContent = title || (opened() === null ? "New conversation" : "Conversation");
  document.title = title ? `${title} · llmsite` : "llmsite";
}

function followLink(event) {
  const link = event.target.closest("a");
  // Other clicks open tabs and windows, which is the browser's business.
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  goTo(link.href);
  if (!link.isConnected) focus(); // it went with what was shown
}

function menuIsOpen() {
  return document.body.classList.contains("menu-open");
}

function toggleMenu(open) {
  const wasInside = menuIsOpen() && $("sidebar").contains(document.activeElement);
  document.body.classList.toggle("menu-open", open);
  $("menu").setAttribute("aria-expanded", String(open));
  for (const behind of document.querySelectorAll("#transcript, .field")) behind.inert = open;
  if (open) $("new").focus();
  else if (wasInside) $("menu").focus();
}

/* ---- Who presses what ---- */

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("prompt").addEventListener("keydown", submitOnEnter);
$("prompt").addEventListener("input", () => fit($("prompt")));
$("stop").addEventListener("click", stop);
$("search").addEventListener("input", lookSoon);
$("older").addEventListener("click", () => list(conversations.loadOlder));
$("conversations").addEventListener("click", followLink);
$("transcript").addEventListener("click", followLink); // the way on from what is missing
$("menu").addEventListener("click", () => toggleMenu(!menuIsOpen()));
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && menuIsOpen()) toggleMenu(false);
});
narrow.addEventListener("change", () => toggleMenu(false));
$("new").addEventListener("click", () => {
  goTo(location.pathname);
  focus();
});
window.addEventListener("popstate", open);
// A page that the browser kept and brings back has lost its streams.
window.addEventListener("pageshow", (event) => event.persisted && open());
document.addEventListener("visibilitychange", lookAgain);
window.addEventListener("focus", lookAgain);

keepUnsent();
asking.whenNew(learn);
conversation.whenTitled(showTitle);
whenReady(ready);
watchModel();
list();
open();
