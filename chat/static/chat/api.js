/* Requests to the API in the name of whoever is logged in: the session's cookie goes along by
 * itself, a POST needs the CSRF token as well. Nothing here knows about the page. */

const TOKEN = document.querySelector("[name=csrfmiddlewaretoken]").value;
const AWAY = [502, 503, 504]; // what a proxy says in place of a server that is not there
const FIRST_PAUSE = 500; // milliseconds until the second attempt; each pause doubles
const LONGEST_PAUSE = 10_000;

/** The server said no, for the reason in the message: asking again would not help. */
export class Refused extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    this.status = status;
    this.code = code; // of docs/errors.md
  }
}

/** Nobody knows whether the server heard it. */
export class Unreachable extends Refused {
  constructor(message = "The server cannot be reached.") {
    super(message);
  }
}

/** JSON from the API. Throws Refused, Unreachable. */
export async function getJSON(address, signal) {
  const response = await request(address, { signal });
  return response.json().catch(() => {
    signal?.throwIfAborted();
    throw new Unreachable(); // in the middle of its answer
  });
}

/** Post JSON; resolves with the fetch response. Throws Refused, Unreachable. */
export function post(address, body, { signal, headers = {} } = {}) {
  return request(address, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRFToken": TOKEN, ...headers },
    body: JSON.stringify(body),
    signal,
  });
}

/** Try until the server can be reached; only for what may be done twice.
 *  onAway: hears true when it cannot be reached, and false when it can again. */
export async function patiently(attempt, { onAway, signal, tries = Infinity }) {
  for (let tried = 1; ; tried += 1) {
    try {
      const result = await attempt();
      onAway(false);
      return result;
    } catch (error) {
      if (!(error instanceof Unreachable) || tried >= tries) throw error;
    }
    onAway(true);
    await backOff(tried, signal);
  }
}

/** A pause before the next attempt, the longer the more there were. */
export function backOff(tried, signal) {
  return new Promise((resolve, reject) => {
    setTimeout(resolve, Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tried - 1)));
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

async function request(address, options) {
  const response = await fetch(address, options).catch(() => null);
  options.signal?.throwIfAborted();
  if (!response) throw new Unreachable();
  if (response.ok) return response;
  if (response.status === 401) {
    throw new Refused("You are logged out. Reload the page to log in again.");
  }
  if (response.status === 403) {
    // Each log-in makes another CSRF token, whichever tab it is in.
    throw new Refused("There was another log-in since this page was loaded. Reload it to go on.");
  }
  // The server says why in a problem document (RFC 9457).
  const problem = await response.json().catch(() => null);
  options.signal?.throwIfAborted();
  const reason = problem?.detail ?? `The server answered with status ${response.status}.`;
  // What is only read may be asked for again also where the server itself said so.
  const away = AWAY.includes(response.status) && !(problem?.detail && options.method);
  throw away ? new Unreachable(reason) : new Refused(reason, response.status, problem?.code);
}
