/** The keyboard in the list of rows: one tab stop for all lines, and arrow keys between them. */

const TOGGLE = ".row:not([hidden]) .toggle";

export function moveWithArrows(list) {
  list.addEventListener("keydown", (event) => {
    const current = event.target.closest(".toggle");
    if (!current) return;
    const toggles = [...list.querySelectorAll(TOGGLE)];
    const index = toggles.indexOf(current);
    const targets = {
      ArrowDown: index + 1,
      ArrowUp: index - 1,
      Home: 0,
      End: toggles.length - 1,
    };
    const target = toggles[targets[event.key]];
    if (!target) return;
    event.preventDefault();
    target.focus();
  });
  list.addEventListener("focusin", (event) => {
    const toggle = event.target.closest(".toggle");
    if (toggle) setEntry(list, toggle);
  });
}

/** Make one line the tab stop: the given one, or else the present one or the first. */
export function setEntry(list, toggle = null) {
  const toggles = [...list.querySelectorAll(TOGGLE)];
  const entry = toggle ?? toggles.find((each) => each.tabIndex === 0) ?? toggles[0];
  for (const each of toggles) each.tabIndex = each === entry ? 0 : -1;
}
