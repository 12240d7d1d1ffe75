/* A block of code in an answer, with a button that copies it. */

import { button, element } from "./elements.js";

const SAID_FOR = 2000; // milliseconds

/** An open block at the end of `box`: what belongs into it is appended to `text`. */
export function addCode(box, { indent, fence, language }) {
  const root = element("div", "code open");
  root.dir = "ltr";
  const bar = element("div", "bar");
  const code = element("code", "");
  const text = code.appendChild(document.createTextNode(""));
  const copying = button("copy", "Copy", () => copy(code, copying), "Copy this code");
  bar.append(element("span", "", language), copying);
  const pre = element("pre", "");
  pre.tabIndex = 0; // so that long lines can be scrolled by keyboard
  pre.append(code);
  root.append(bar, pre);
  box.append(root);
  return { text, indent, fence, close: () => root.classList.remove("open") };
}

async function copy(code, button) {
  // Without the last line's end: in a terminal that would run it.
  const text = code.textContent.replace(/\n$/, "");
  // navigator.clipboard is only there on HTTPS and localhost, and may be forbidden.
  const copied = await navigator.clipboard?.writeText(text).then(
    () => true,
    () => false,
  );
  button.textContent = copied || copySelected(code) ? "Copied" : "Selected";
  setTimeout(() => (button.textContent = "Copy"), SAID_FOR);
}

function copySelected(code) {
  getSelection().selectAllChildren(code);
  return document.execCommand("copy");
}
