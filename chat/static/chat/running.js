/* The one answer that grows: while there is one, nothing else can be asked. */

import { showRunning } from "./composer.js";
import { setBusy } from "./transcript.js";

let id = null; // of the response, "" until it has one, null for none
let over = Promise.resolve();
let end = () => null;

export function isRunning() {
  return id !== null;
}

export function current() {
  return id;
}

/** Resolves when nothing grows; another promise as soon as something does again. */
export function ended() {
  return over;
}

export function run(response) {
  if (response === null) end();
  else if (id === null) over = new Promise((resolve) => (end = resolve));
  id = response;
  showRunning(id);
  setBusy(id !== null);
}
