/* The chat page. The address' hash is the open conversation, so that reload, back and
 * links work by themselves. Text only ever becomes text: no markup is made from strings. */

import { ACTIVE, Refused, ask, follow, getJSON } from "./answers.js";

const $ = (id) => document.getElementById(id);
const TOKEN = document.querySelector("[name=csrfmiddlewaretoken]").value;

// What is shown now. `view` is aborted when something else is shown: its requests end with it.
let view = new AbortController();
let conversation = null;
let known = new Set(); // message ids in the transcript
let olderList = null; // the address of the next page of conversations

/* ---- Small makers of elements ---- */

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function notice(text = "") {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

/* ---- The transcript ---- */

/** Add one turn; returns what can still be changed about it. */
function addTurn(role, content) {
  const turn = element("article", `turn ${role}`);
  const name = { user: "You", assistant: "Answer" }[role] ?? role;
  const text = element("div", "text", content);
  text.dir = "auto";
  turn.append(element("h2", "quiet", name), text);
  stayAtEnd(() => $("transcript").append(turn));
  return { turn, text };
}

/** A turn that grows: `onPiece` for the text, `end` for what there is to say after it. */
function addAnswer() {
  const { turn, text } = addTurn("assistant", "");
  turn.classList.add("growing");
  $("transcript").setAttribute("aria-busy", "true"); // read aloud when complete, not by the word
  return {
    remove: () => turn.remove(),
    onPiece: (piece) =>
      stayAtEnd(() => {
        known.add(piece.message_id);
        if (piece.whole) text.textContent = piece.text;
        else if (piece.text) text.append(piece.text);
      }),
    end: (problem = "", remark = "") =>
      stayAtEnd(() => {
        turn.classList.remove("growing");
        if (problem) turn.append(element("p", "problem", problem));
        if (remark) turn.append(element("p", "remark", remark));
        $("transcript").removeAttribute("aria-busy");
      }),
  };
}

/** Keep the newest line in sight, unless the reader scrolled up. */
function stayAtEnd(change) {
  const box = $("transcript");
  const wasAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 60;
  change();
  if (wasAtEnd) box.scrollTop = box.scrollHeight;
}

function remarkOn(finishReason) {
  return finishReason === "length" ? "The answer was cut off at the token limit." : "";
}

function showEmpty() {
  const empty = element("div", "empty");
  empty.append(element("p", "", "What would you like to know?"));
  $("transcript").replaceChildren(empty);
}

/* ---- Asking ---- */

async function send() {
  const prompt = $("prompt").value;
  if (!prompt.trim() || $("send").disabled) return;
  const mine = view;
  notice();
  $("transcript").querySelector(".empty")?.remove();
  setPrompt("");
  const { turn } = addTurn("user", prompt);
  const answer = addAnswer();
  try {
    await carry(answer, () => askHere(prompt, answer, mine), mine);
  } catch (error) {
    // Nothing was stored: as if it had not been sent, with the reason beside it.
    turn.remove();
    answer.remove();
    if (!$("transcript").children.length) showEmpty();
    setPrompt($("prompt").value || prompt);
    notice(error.message);
  }
}

/** Ask in the open conversation, and learn which one it is. */
function askHere(prompt, answer, mine) {
  let learned = null;
  const onPiece = (piece) => {
    learned ??= learnConversation(piece.message_id, mine);
    answer.onPiece(piece);
  };
  const question = { prompt, conversation, known: new Set(known), token: TOKEN };
  // The next prompt must know its conversation, so this one is not over before.
  return ask(question, onPiece, mine.signal).finally(() => learned);
}

/** Show an answer until its end. Throws Refused; every other end is shown in place. */
async function carry(answer, begin, mine) {
  $("send").disabled = true;
  try {
    const done = await begin();
    answer.end("", remarkOn(done.finish_reason));
  } catch (error) {
    if (mine.signal.aborted) return; // another conversation is shown; nothing to say here
    answer.end(error instanceof Refused ? "" : error.message);
    if (error instanceof Refused) throw error;
  } finally {
    if (mine === view) $("send").disabled = false;
  }
}

/** The first answer of a new conversation tells where it was stored. */
async function learnConversation(messageId, mine) {
  if (conversation) return;
  const row = await getJSON(`/api/responses/${messageId}/`, mine.signal).catch(() => null);
  if (!row || mine !== view) return;
  conversation = row.conversation;
  // replaceState and not location.hash: the page must not open what it already shows.
  history.replaceState(null, "", `#${conversation}`);
  await listConversations();
}

/* ---- Conversations ---- */

async function listConversations(address = "/api/conversations/") {
  const page = await getJSON(address).catch((error) => notice(error.message));
  if (!page) return;
  const items = page.results.map(conversationItem);
  if (address === "/api/conversations/") $("conversations").replaceChildren(...items);
  else $("conversations").append(...items);
  olderList = page.next && `/api/conversations/${new URL(page.next).search}`;
  $("older").hidden = !olderList;
  markOpen();
}

function conversationItem(row) {
  const item = document.createElement("li");
  const link = element("a", "", row.title || "Untitled");
  link.href = `#${row.id}`;
  link.title = new Date(row.created_at).toLocaleString();
  item.append(link);
  return item;
}

/** Mark the open conversation in the list, and name it in the heading. */
function markOpen() {
  let title = "";
  for (const link of $("conversations").querySelectorAll("a")) {
    const open = conversation && link.hash === `#${conversation}`;
    if (open) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (open) title = link.textContent;
  }
  $("title").textContent = title || (conversation ? "Conversation" : "New conversation");
  document.title = title ? `${title} · llmsite` : "llmsite";
}

/** Show what the address' hash names. */
async function open() {
  view.abort();
  view = new AbortController();
  conversation = location.hash.slice(1) || null;
  known = new Set();
  toggleMenu(false);
  notice();
  $("transcript").replaceChildren();
  markOpen();
  $("send").disabled = false;
  $("transcript").removeAttribute("aria-busy");
  if (!conversation) showEmpty();
  else await showTranscript(view).catch((error) => notice(error.message));
}

async function showTranscript(mine) {
  const prompts = await allPrompts(conversation, mine.signal);
  if (mine !== view) return;
  const path = newestPath(prompts);
  if (!path.length) showEmpty();
  for (const { prompt, response } of path) {
    for (const turn of prompt.earlier) addTurn(turn.role, turn.content);
    if (prompt.content) addTurn("user", prompt.content);
    if (response) await showResponse(response, mine);
    if (mine !== view) return;
  }
  $("transcript").scrollTop = $("transcript").scrollHeight;
}

async function showResponse(response, mine) {
  const answer = addAnswer();
  const messageId = response.id.replaceAll("-", "");
  known.add(messageId);
  if (ACTIVE.includes(response.status)) {
    await carry(answer, () => follow(messageId, answer.onPiece, mine.signal), mine);
    return;
  }
  answer.onPiece({ message_id: messageId, text: response.text });
  answer.end(response.error, remarkOn(response.finish_reason));
}

async function allPrompts(id, signal) {
  const rows = [];
  let query = "?page_size=200";
  while (query) {
    const page = await getJSON(`/api/conversations/${id}/prompts/${query}`, signal);
    rows.push(...page.results);
    query = page.next && new URL(page.next).search;
  }
  return rows;
}

/** Prompts are a tree by `follows`; the page shows the branch that ends in the newest prompt. */
function newestPath(prompts) {
  const asked = new Map(); // response id → its prompt
  for (const prompt of prompts)
    for (const response of prompt.responses) asked.set(response.id, { prompt, response });
  const path = [];
  let at = prompts[0] && { prompt: prompts[0], response: prompts[0].responses[0] };
  while (at) {
    path.unshift(at);
    at = asked.get(at.prompt.follows);
  }
  return path;
}

/* ---- The model ---- */

async function watchModel() {
  const response = await fetch("/readyz").catch(() => null);
  const state = response && (await response.json().catch(() => null));
  $("readiness").dataset.state = state?.status ?? "unreachable";
  $("model").textContent = describe(state);
  showProgress(state?.progress);
  if (state?.status !== "ready") setTimeout(watchModel, 1000);
}

function describe(state) {
  if (!state) return "The server cannot be reached.";
  if (state.status === "ready") return state.model;
  return state.detail || "The model is loading.";
}

function showProgress(progress) {
  $("progress").hidden = !progress;
  if (typeof progress?.fraction === "number") $("progress").value = progress.fraction;
  else $("progress").removeAttribute("value"); // how much there is to do is not known yet
}

/* ---- The form and the menu ---- */

function setPrompt(text) {
  $("prompt").value = text;
  fitPrompt();
  $("prompt").focus();
}

function fitPrompt() {
  const field = $("prompt");
  field.rows = 1;
  while (field.scrollHeight > field.clientHeight && field.rows < 8) field.rows += 1;
}

function sendOnEnter(event) {
  // While an input method composes (Chinese, Japanese), Enter picks a word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
}

function toggleMenu(open) {
  document.body.classList.toggle("menu-open", open);
  $("menu").setAttribute("aria-expanded", String(open));
}

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("prompt").addEventListener("keydown", sendOnEnter);
$("prompt").addEventListener("input", fitPrompt);
$("older").addEventListener("click", () => listConversations(olderList));
$("menu").addEventListener("click", () => toggleMenu(!document.body.classList.contains("menu-open")));
$("new").addEventListener("click", () => {
  history.pushState(null, "", location.pathname);
  open();
  $("prompt").focus();
});
window.addEventListener("popstate", open); // also for a changed hash

watchModel();
listConversations();
open();
