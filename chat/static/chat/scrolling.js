/* Where the transcript is scrolled to. */

const box = document.getElementById("transcript");
let known = false; // whether the end is in sight, before several changes
let height = 0; // of the box, before the field below it grew or the window changed

new ResizeObserver(() => {
  if (isAtEnd()) toEnd();
  height = box.clientHeight;
}).observe(box);

export function toEnd() {
  box.scrollTop = box.scrollHeight;
}

/** Keep the newest line in sight, unless the reader scrolled up. */
export function stayAtEnd(change) {
  if (known) return change();
  const wasAtEnd = isAtEnd();
  change();
  if (wasAtEnd) toEnd();
}

function isAtEnd() {
  return box.scrollHeight - box.scrollTop - Math.max(height, box.clientHeight) < 60;
}

/** The same for many changes: to look for the end between them would cost a layout each. */
export function stayAtEndOfAll(change) {
  stayAtEnd(() => {
    known = true;
    try {
      change();
    } finally {
      known = false;
    }
  });
}

/** Change turns without moving what is read above them. */
export function inPlace(change) {
  const top = box.scrollTop;
  change();
  box.scrollTop = top;
}
