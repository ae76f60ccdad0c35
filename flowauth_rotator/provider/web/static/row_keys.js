/** The keyboard in the list of rows: one tab stop for all lines, and arrow keys between them. */

const TOGGLE = ".row:not([hidden]) .toggle";
const CHECKBOX = ".row:not([hidden]) .selection input";

export function moveWithArrows(list) {
  list.addEventListener("keydown", (event) => {
    const selector = [TOGGLE, CHECKBOX].find((each) => event.target.matches(each));
    if (!selector) return;
    const elements = [...list.querySelectorAll(selector)];
    const index = elements.indexOf(event.target);
    const targets = {
      ArrowDown: index + 1,
      ArrowUp: index - 1,
      Home: 0,
      End: elements.length - 1,
    };
    const target = elements[targets[event.key]];
    if (!target) return;
    event.preventDefault();
    target.focus();
  });
  list.addEventListener("focusin", (event) => {
    if (event.target.matches(`${TOGGLE}, ${CHECKBOX}`)) setEntry(list, event.target.closest(".row"));
  });
}

/** Make one line the tab stop: that of the given row, or else the present one or the first. */
export function setEntry(list, row = null) {
  const rows = [...list.querySelectorAll(".row:not([hidden])")];
  const find = (each, selector) => each.querySelector(selector);
  const entry = row ?? rows.find((each) => find(each, ".toggle").tabIndex === 0) ?? rows[0];
  for (const each of rows) {
    const tabIndex = each === entry ? 0 : -1;
    find(each, ".toggle").tabIndex = tabIndex;
    find(each, ".selection input").tabIndex = tabIndex;
  }
}
