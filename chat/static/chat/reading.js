/* How the page reads from the API, and what it says when that does not work. */

import { Refused, getJSON, patiently } from "./api.js";
import * as composer from "./composer.js";
import { count } from "./exchanges.js";
import * as model from "./model.js";
import { showMissing } from "./transcript.js";

const MISSING = "This conversation does not exist, or is not yours.";

/** JSON, as soon as the server can be reached. */
export function get(address, { signal } = {}) {
  return patiently(() => getJSON(address, signal), { onAway: away, signal });
}

export function away(isAway) {
  composer.away(isAway);
  model.away(isAway);
}

/** Say why nothing was read, unless nobody wants to know any more. */
export function refused(error, { signal }) {
  if (signal.aborted) return;
  if (!(error instanceof Refused)) throw error;
  const reason = error.status === 404 ? MISSING : error.message;
  if (error.status === 404 && !count()) showMissing(reason);
  else composer.notice(reason);
}
