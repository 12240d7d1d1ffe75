/* The list of conversations at the side. */

import { getJSON } from "./api.js";
import { element } from "./elements.js";

const FIRST = "/api/conversations/";
const list = document.getElementById("conversations");
const older = document.getElementById("older");
let next = null; // the address of the next page
let loadingOlder = false;

/** Load the newest conversations, or those behind the ones shown. Throws Refused. */
export async function load(address = FIRST) {
  const page = await getJSON(address);
  const items = page.results.map(item);
  if (address === FIRST) replace(items);
  else list.append(...items);
  next = page.next && FIRST + new URL(page.next).search;
  older.hidden = !next;
}

/** Once, however often it is asked for meanwhile. Throws Refused. */
export async function loadOlder() {
  if (loadingOlder) return;
  loadingOlder = true;
  try {
    await load(next);
  } finally {
    loadingOlder = false;
  }
}

/** The page's address for a conversation. */
export function addressOf(id) {
  return `?conversation=${id}`;
}

/** Mark the open conversation, and return its title; empty when it is not in the list. */
export function mark(id) {
  let title = "";
  for (const link of list.querySelectorAll("a")) {
    const open = id !== null && link.search === addressOf(id);
    if (open) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (open) title = link.textContent;
  }
  return title;
}

/** Whoever walks through the list by keyboard stays where they are. */
function replace(items) {
  const focused = list.contains(document.activeElement) && document.activeElement.search;
  list.replaceChildren(...items);
  if (focused) list.querySelector(`a[href="${focused}"]`)?.focus();
}

function item(row) {
  const made = document.createElement("li");
  const link = element("a", "", row.title || "Untitled");
  link.href = addressOf(row.id);
  link.title = new Date(row.created_at).toLocaleString();
  made.append(link);
  return made;
}
