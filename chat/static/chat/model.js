/* Which model answers, or how far it is loaded: looked at until it is ready, and again while there
 * is reason to doubt it. */

const EVERY = 1000; // milliseconds between looks while it is not ready
let timer = null; // for the next look
let looks = 0; // how many there were: only the last one's answer is shown
let lost = false; // whether the server was away when it was last heard of
let onReady = () => null; // hears of each look that finds it ready
const $ = (id) => document.getElementById(id);

export function whenReady(callback) {
  onReady = callback;
}

export async function watchModel() {
  clearTimeout(timer);
  const look = (looks += 1);
  const response = await fetch("/readyz").catch(() => null);
  const state = response && (await response.json().catch(() => null));
  if (look !== looks) return; // a later one is under way, or told already
  const isReady = state?.status === "ready";
  $("readiness").dataset.state = state?.status ?? "unreachable";
  $("model").textContent = $("model").title = describe(state);
  showProgress(state?.status === "loading" ? state.progress : null);
  if (isReady) {
    lost = false; // whoever finds it away after all says so, and this is asked anew
    onReady();
  } else timer = setTimeout(watchModel, EVERY);
}

/** The server went away or came back: so may the model have. */
export function away(isAway) {
  const changed = isAway !== lost;
  lost = isAway;
  if (changed) watchModel();
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
