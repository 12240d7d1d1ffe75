/* Which conversation is open.
 *
 * view: aborted when something else is opened: its requests end with it. id: null for a new one.
 * newest: the id of its newest response, as far as the page knows. */

export const opened = { view: new AbortController(), id: null, newest: null };

export function open(id) {
  opened.view.abort();
  Object.assign(opened, { view: new AbortController(), id, newest: null });
}

export function addressInAPI() {
  return `/api/conversations/${encodeURIComponent(opened.id)}/`;
}
