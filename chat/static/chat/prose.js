/* A text that grows: prose as it is, and what stands between fences (``` or ~~~) as code. Each
 * piece is looked at once and appended, however long the text is already; that also leaves alone
 * what the reader has selected. */

import { addCode } from "./code.js";

const OPENS = /^([ \t]*)(`{3,}(?=[^`]*$)|~{3,})[ \t]*(\S*)/;
const CLOSES = /^[ \t]*(`{3,}|~{3,})[ \t\r]*$/;
// The same of a line whose end has not come.
const MAY_OPEN = /^[ \t]*(`{0,2}|`{3,}[^`]*|~{0,2}|~{3,}[^\n]*)$/; // `.` would end at \r
// Space is matched in one place only: in two, a long line of it takes the square of its length.
const MAY_CLOSE = /^[ \t]*(?:(?:`+|~+)[ \t\r]*|\r*)$/;

/** Let `box` show a text: `show` all of it so far, `end` when there is no more. */
export function growingText(box) {
  let shown = "";
  let writer = write(box);
  const show = (whole) => {
    if (!whole.startsWith(shown)) {
      box.replaceChildren();
      shown = "";
      writer = write(box);
    }
    writer.add(whole.slice(shown.length));
    shown = whole;
  };
  return { show, end: () => writer.end() };
}

function write(box) {
  let target = box.appendChild(document.createTextNode(""));
  let code = null; // the block that is open
  let ready = ""; // to be appended to `target`
  let held = ""; // the beginning of a line that may be a fence
  let decided = false; // whether the line is none

  const flush = () => {
    if (ready) target.appendData(ready);
    ready = "";
  };

  /** Begin or end a block if this whole line says so. */
  const turns = (line) => {
    const fence = (code ? CLOSES : OPENS).exec(line);
    if (!fence || (code && !fence[1].startsWith(code.fence))) return false;
    flush();
    if (code) code.close();
    code = code ? null : addCode(box, { indent: fence[1], fence: fence[2], language: fence[3] });
    target = code ? code.text : box.appendChild(document.createTextNode(""));
    return true;
  };

  const addToLine = (part, complete) => {
    if (decided) ready += part;
    else {
      held += part;
      const undecided = !complete && (code ? MAY_CLOSE : MAY_OPEN).test(held);
      if (undecided) return;
      const fence = complete && turns(held);
      if (!fence) ready += inCode(held);
      held = "";
      if (fence) return;
    }
    decided = !complete;
    if (complete) ready += "\n";
  };

  /** A block in a list is indented as a whole. */
  const inCode = (line) =>
    code && line.startsWith(code.indent) ? line.slice(code.indent.length) : line;

  const add = (piece) => {
    const lines = piece.split("\n");
    lines.forEach((part, index) => addToLine(part, index < lines.length - 1));
    flush();
  };

  const end = () => {
    // A fence that opens nothing is text.
    if (!code || !turns(held)) ready += inCode(held);
    held = "";
    flush();
    code?.close();
  };

  return { add, end };
}
