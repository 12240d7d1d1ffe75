/* The turns on the page. */

import { button, element } from "./elements.js";
import { growingText } from "./prose.js";
import { stayAtEnd } from "./scrolling.js";

const box = document.getElementById("transcript");

export function showEmpty() {
  const empty = element("div", "empty");
  empty.append(element("p", "", "What would you like to know?"));
  box.replaceChildren(empty);
}

/** In place of a conversation, with a way on. */
export function showMissing(reason) {
  if (box.querySelector(".way")) return; // said already, and somebody may be about to take it
  const empty = element("div", "empty");
  const said = element("p", "", reason);
  said.setAttribute("role", "alert");
  const way = element("a", "way", "Start a new conversation");
  way.href = location.pathname;
  empty.append(said, way);
  box.replaceChildren(empty);
}

export function clear() {
  box.replaceChildren();
}

/** Whether an answer grows: then nothing else can be asked. */
export function setBusy(busy) {
  box.classList.toggle("busy", busy);
}

/** Take a turn and all below it out; what comes back puts them in again. */
export function cutFrom(turn) {
  const turns = turn ? [...box.children].slice([...box.children].indexOf(turn)) : [];
  for (const cut of turns) cut.remove();
  return () => box.append(...turns);
}

/** One turn: {root, text, actions}. */
export function addTurn(role, content) {
  box.querySelector(".empty")?.remove();
  const root = element("article", `turn ${role}`);
  const name = { user: "You", assistant: "Answer" }[role] ?? role;
  const text = element("div", "text", content);
  text.dir = "auto";
  const actions = element("div", "actions");
  root.append(element("h2", "quiet", name), text, actions);
  stayAtEnd(() => box.append(root));
  return { root, text, actions };
}

/** A turn of the person's that can be asked anew: onEdit gets the new text, and resolves with
 *  whether the server took it. */
export function addPrompt(content, onEdit) {
  const turn = addTurn("user", content);
  const edit = button("edit", "Edit", () => openEditor(turn, content, onEdit), "Edit this prompt");
  turn.actions.append(edit);
  return turn;
}

/** A turn that grows: `show` for the text so far, `end` for what there is to say after it. */
export function addAnswer(onAgain) {
  const turn = addTurn("assistant", "");
  const text = growingText(turn.text);
  turn.root.classList.add("growing");
  turn.text.setAttribute("aria-busy", "true"); // read aloud when complete, not by the word
  const show = (whole) => stayAtEnd(() => text.show(whole));
  const end = (row) =>
    stayAtEnd(() => {
      text.end();
      turn.root.classList.remove("growing");
      turn.text.removeAttribute("aria-busy");
      for (const call of row.tool_calls ?? []) {
        turn.actions.before(element("p", "call", describeCall(call)));
      }
      for (const remark of remarks(row)) turn.actions.before(element("p", "remark", remark));
      if (row.error) turn.actions.before(element("p", "problem", row.error));
      const again = () => onAgain();
      if (onAgain) turn.actions.append(button("again", "Again", again, "Answer again"));
    });
  return { ...turn, show, end };
}

/** A function that the model asked for, in place of a text or after it. */
function describeCall({ name, arguments: values }) {
  const pair = ([key, value]) => `${key}=${JSON.stringify(value)}`;
  const given = Object.entries(values ?? {}).map(pair);
  return `${name}(${given.join(", ")})`;
}

function remarks(row) {
  const said = [];
  const nothing = !row.text.trim() && !row.tool_calls?.length;
  if (nothing && row.status === "done") said.push("The answer is empty.");
  if (row.finish_reason === "length") said.push("The answer was cut off at the token limit.");
  if (row.status === "stopped") said.push("Stopped.");
  if (row.omitted?.length) {
    said.push(
      "The beginning of this conversation no longer fits and was not seen by the model.",
    );
  }
  return said;
}

/** Say in a turn's actions which of these versions it is. onChoose gets another one, 1 or -1. */
export function markVersion({ actions }, ids, id, onChoose) {
  const old = actions.querySelector(".versions");
  const versions = `${id} of ${ids}`;
  if (old?.dataset.versions === versions) return; // somebody may be pressing it
  const focused = [...(old?.children ?? [])].indexOf(document.activeElement);
  old?.remove();
  if (ids.length < 2) return;
  const index = ids.indexOf(id);
  const way = (name, sign, step) => {
    const choose = () => onChoose(ids[index + step], step);
    const made = button(name, sign, choose, `Show the ${name} version`);
    made.disabled = !ids[index + step];
    return made;
  };
  const group = element("span", "versions");
  group.dataset.versions = versions;
  const place = element("span", "", `${index + 1} of ${ids.length}`);
  group.append(way("previous", "‹", -1), place, way("next", "›", 1));
  actions.prepend(group);
  group.children[focused]?.focus({ preventScroll: true });
}

/** Go on where versions were chosen by keyboard. */
export function focusVersion({ actions }, step) {
  const ways = [...actions.querySelectorAll(".versions button")];
  if (step > 0) ways.reverse();
  ways.find((way) => !way.disabled)?.focus();
}

/** Whether a prompt is open to be asked anew. */
export function isEdited() {
  return box.querySelector(".editor") !== null;
}

/** What has been written in such places, and not asked. */
export function edits() {
  const fields = [...box.querySelectorAll(".editor textarea")];
  return fields.filter((field) => field.value !== field.defaultValue).map(({ value }) => value);
}

/** A prompt as a form in its place: Enter asks, Escape leaves it as it was. What the server did
 *  not take is open again. */
function openEditor({ root, text, actions }, content, onEdit) {
  const form = element("form", "editor");
  const field = element("textarea", "");
  field.defaultValue = content;
  field.dir = "auto";
  field.setAttribute("aria-label", "Edit the prompt");
  const close = () => {
    form.remove();
    text.hidden = actions.hidden = false;
    actions.querySelector(".edit").focus();
  };
  const ask = element("button", "primary", "Ask");
  form.append(field, button("cancel", "Cancel", close), ask);
  const show = () => {
    text.hidden = actions.hidden = true;
    actions.before(form);
    fit(field);
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!field.value.trim() || box.classList.contains("busy")) return;
    close();
    if (await onEdit(field.value)) return;
    show();
    if (!document.activeElement?.value) field.focus(); // who writes elsewhere is left there
  });
  field.addEventListener("input", () => fit(field));
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !composes(event)) close();
    else submitOnEnter(event);
  });
  show();
  field.focus();
}

/** Enter sends, Shift + Enter makes a new line. */
export function submitOnEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || composes(event)) return;
  event.preventDefault();
  event.target.form.requestSubmit();
}

/** While an input method composes (Chinese, Japanese), Enter picks a word and Escape none. Safari
 *  has ended that by then, and only its code 229 tells. */
function composes(event) {
  return event.isComposing || event.keyCode === 229;
}

/** As many lines as there are, up to eight. */
export function fit(field) {
  field.rows = 1;
  while (field.scrollHeight > field.clientHeight && field.rows < 8) field.rows += 1;
}
