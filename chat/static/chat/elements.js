/* Parts of the page. Text only ever becomes text: no markup is made from strings. */

export function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

export function button(name, text, onClick, label = text) {
  const made = element("button", `act ${name}`, text);
  made.type = "button";
  made.setAttribute("aria-label", label);
  made.addEventListener("click", onClick);
  return made;
}
