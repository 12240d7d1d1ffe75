/* What is shown of the open conversation: its prompts with their answers, first to last. */

import * as transcript from "./transcript.js";
import { ofAnswer, ofPrompt } from "./versions.js";

const READABLE = ["done", "stopped", "interrupted"]; // what a prompt can follow

/* {prompt (id), follows (response id or null), asked (a turn), row (of the answer), answer} */
let shown = [];
let onChoose = () => null; // another version

export function clear() {
  shown = [];
  transcript.clear();
}

export function count() {
  return shown.length;
}

export function at(index) {
  return shown[index];
}

export function indexOf(exchange) {
  return shown.indexOf(exchange);
}

/** Put one more at the end, without its answer. onEdit gets a new text for its prompt. */
export function add({ prompt = null, follows, content, role = "user" }, onEdit) {
  const exchange = { prompt, follows, asked: null, row: null, answer: null };
  if (role === "user" && content) {
    exchange.asked = transcript.addPrompt(content, (text) => onEdit(exchange, text));
  } else if (content) {
    exchange.asked = transcript.addTurn(role, content);
  }
  shown.push(exchange);
  return exchange;
}

/** Take exchanges off the page; what comes back puts them in again. */
export function cut(index) {
  const gone = shown.splice(index);
  const restore = transcript.cutFrom((gone[0]?.asked ?? gone[0]?.answer)?.root);
  return () => {
    shown.push(...gone);
    restore();
  };
}

/** callback: gets the id of another version, and where: an index, `asked` or `answer`, 1 or -1. */
export function whenChosen(callback) {
  onChoose = callback;
}

/** Say which version each prompt and answer is, where there are several. */
export function markVersions() {
  shown.forEach((exchange, index) => {
    if (!exchange.row) return;
    const mark = (part, ids, id) => {
      const choose = (other, step) => onChoose(other, index, part, step);
      transcript.markVersion(exchange[part], ids, id, choose);
    };
    if (exchange.asked) mark("asked", ofPrompt(exchange), exchange.prompt);
    mark("answer", ofAnswer(exchange), exchange.row.id);
  });
}

/** The response that a next prompt follows. */
export function lastReadable() {
  const rows = shown.map(({ row }) => row).filter((row) => READABLE.includes(row?.status));
  return rows.at(-1)?.id ?? null;
}

/** How many of these are what is shown already, from the first on. */
export function shared(exchanges) {
  const differs = ({ prompt, row }, index) =>
    prompt !== shown[index]?.prompt || row.id !== shown[index].row?.id;
  const index = exchanges.findIndex(differs);
  return index < 0 ? exchanges.length : index;
}

/** A path of the API's, as exchanges: {prompt, role, content, follows, row}. */
export function ofPath(path) {
  const exchanges = [];
  let follows = null;
  for (let at = 0; at < path.length; at += 2) {
    const { response, content, ...state } = path[at + 1];
    exchanges.push({ ...path[at], follows, row: { ...state, id: response, text: content } });
    follows = response;
  }
  return exchanges;
}
