/* A note that was typed and not stored outlives its page: who has to log in before judging, or
 * reloads, finds it again. What was stored meanwhile stands. */

const note = document.querySelector(".chat-judge textarea");
const values = note.form.elements.value;
const row = location.pathname.replace(/[^/]+\/$/, ""); // the page's, and its form's
// Somebody else may log in in the same tab.
const UNSENT = `note of ${note.closest(".chat-judge").dataset.reviewer} on ${row}`;

const kept = JSON.parse(sessionStorage.getItem(UNSENT));
if (kept?.before === note.defaultValue) {
  note.value = kept.note;
  values.value = kept.value;
}

window.addEventListener("pagehide", () => {
  const typed = { before: note.defaultValue, note: note.value, value: values.value };
  if (typed.note === typed.before) sessionStorage.removeItem(UNSENT);
  else sessionStorage.setItem(UNSENT, JSON.stringify(typed));
});
