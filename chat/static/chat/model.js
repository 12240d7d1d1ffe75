/* Which model answers, or how far it is loaded. */

const EVERY = 1000; // milliseconds between looks while it is not ready
const $ = (id) => document.getElementById(id);

export async function watchModel() {
  const response = await fetch("/readyz").catch(() => null);
  const state = response && (await response.json().catch(() => null));
  $("readiness").dataset.state = state?.status ?? "unreachable";
  $("model").textContent = $("model").title = describe(state);
  showProgress(state?.status === "loading" ? state.progress : null);
  if (state?.status !== "ready") setTimeout(watchModel, EVERY);
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
