/* The list of conversations at the side: all of them, or those with the words that are looked for. */

import { element } from "./elements.js";
import { get } from "./reading.js";

const FIRST = "/api/conversations/";
const list = document.getElementById("conversations");
const older = document.getElementById("older");
const none = document.getElementById("none");
const titles = new Map(); // of all that were in the list or opened, by id
let wanted = ""; // the words that are looked for
let looks = 0; // how often they were looked for: what belongs to an earlier look is not shown
let finding = null; // until what is shown is what is wanted
let next = null; // the address of the next page
let loadingOlder = false;

/** Load the newest conversations, or those behind the ones shown. Throws Refused. */
export async function load(address = first()) {
  const look = looks;
  const page = await get(address);
  if (look !== looks) return;
  if (address === first()) replace(page.results);
  else list.append(...page.results.map(item));
  next = page.next && FIRST + new URL(page.next).search;
  older.hidden = !next;
  none.hidden = !wanted || list.childElementCount > 0;
}

/** Show those with these words, or all when there are none. Throws Refused. */
export function find(words) {
  wanted = words.trim();
  looks += 1; // also for the same words: there may be more by now
  older.hidden = true; // what is older belongs to the words before
  finding ??= catchUp().finally(() => (finding = null));
  return finding;
}

/** One search at a time, however fast somebody types: each may read all that was ever said. */
async function catchUp() {
  let look;
  do {
    look = looks;
    try {
      await load();
    } catch (error) {
      if (look === looks) throw error; // else it concerns what nobody looks for any more
    }
  } while (look !== looks);
}

function first() {
  return wanted ? `${FIRST}?search=${encodeURIComponent(wanted)}` : FIRST;
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

/** Remember the title of one that may not be in the list. */
export function remember(id, title) {
  titles.set(id, title || "Untitled");
}

/** Mark the open conversation, and return its title; empty as long as that is not known. */
export function mark(id) {
  for (const link of list.querySelectorAll("a")) {
    const open = id !== null && link.search === addressOf(id);
    if (open) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  return titles.get(id) ?? "";
}

/** What stays in the list stays in its place: for who walks through it by keyboard, and for the
 *  click of who is just pressing it. */
function replace(rows) {
  const focused = list.contains(document.activeElement) && document.activeElement;
  const before = new Map([...list.children].map((there) => [there.firstChild.search, there]));
  const items = rows.map((row) => keep(before.get(addressOf(row.id)), row) ?? item(row));
  for (const there of before.values()) if (!items.includes(there)) there.remove();
  let at = list.firstElementChild;
  for (const one of items) {
    if (one === at) at = at.nextElementSibling;
    else list.insertBefore(one, at);
  }
  if (focused) focused.focus();
}

function keep(there, row) {
  if (!there) return null;
  remember(row.id, row.title);
  const title = titles.get(row.id);
  if (there.textContent !== title) there.firstChild.textContent = title;
  return there;
}

function item(row) {
  const made = document.createElement("li");
  remember(row.id, row.title);
  const link = element("a", "", titles.get(row.id));
  link.href = addressOf(row.id);
  link.dir = "auto"; // a long title is cut at its end, wherever that is
  link.title = new Date(row.created_at).toLocaleString();
  made.append(link);
  return made;
}
