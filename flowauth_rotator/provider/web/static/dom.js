/** Small helpers that change a document only where it differs, so that nobody's place is lost. */

export const byId = (id) => document.getElementById(id);

/** A copy of a template, and its parts by their `data-part`. */
export function stamp(template) {
  const root = byId(template).content.firstElementChild.cloneNode(true);
  const parts = {};
  for (const part of root.querySelectorAll("[data-part]")) parts[part.dataset.part] = part;
  return { root, parts };
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function mark(element, attribute, value) {
  if (value === null) element.removeAttribute(attribute);
  else if (element.getAttribute(attribute) !== value) element.setAttribute(attribute, value);
}

export function show(element, shown) {
  if (element.hidden === Boolean(shown)) element.hidden = !shown;
}

/** Say it, or hide the element, or the fact that it belongs to, where there is nothing to say. */
export function tell(element, text) {
  const known = text !== null && text !== "";
  show(element.closest("[data-fact]") ?? element, known);
  say(element, known ? text : "");
}

/** A link to a page of Airflow's, whose root is one up from here. */
export function lead(link, url) {
  const known = typeof url === "string"; // "" is Airflow's root
  show(link, known);
  if (known) mark(link, "href", new URL(`../${url}`, document.baseURI).href);
}

export function create(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Bring elements into this order within a list, and leave those alone that stand right. */
export function arrange(list, elements) {
  const focused = document.activeElement;
  let next = list.firstElementChild;
  for (const element of elements) {
    if (element === next) next = next.nextElementSibling;
    else if (element.isConnected && list.moveBefore) list.moveBefore(element, next);
    else list.insertBefore(element, next);
  }
  if (focused !== document.activeElement && focused.isConnected) {
    focused.focus({ preventScroll: true });
  }
}

/** One view for each item, kept from answer to answer by the item's key. */
export class Views {
  #views = new Map();

  constructor(keyOf, create) {
    this.keyOf = keyOf;
    this.create = create;
  }

  /** The views in the order of their items; those of items that are gone are removed. */
  update(items, now) {
    const known = this.#views;
    this.#views = new Map();
    for (const item of items) {
      const key = this.keyOf(item);
      const view = known.get(key) ?? this.create();
      known.delete(key);
      view.update(item, now);
      this.#views.set(key, view);
    }
    for (const gone of known.values()) gone.root.remove();
    return this.all;
  }

  get all() {
    return [...this.#views.values()];
  }
}
