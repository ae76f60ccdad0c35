/** DOM helpers that change only what differs, so that focus and selection are kept. */

import { formatAbsolute } from "./time.js";

export const byId = (id) => document.getElementById(id);

/** Clone a template; return its root, and its parts by their `data-part`. */
export function cloneTemplate(template) {
  const root = byId(template).content.firstElementChild.cloneNode(true);
  const parts = {};
  for (const part of root.querySelectorAll("[data-part]")) parts[part.dataset.part] = part;
  return { root, parts };
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, attribute, value) {
  if (value === null) element.removeAttribute(attribute);
  else if (element.getAttribute(attribute) !== value) element.setAttribute(attribute, value);
}

export function setVisible(element, visible) {
  if (element.hidden === Boolean(visible)) element.hidden = !visible;
}

/** Set a text; without one, hide the element, or the `data-fact` that contains it. */
export function setOptionalText(element, text) {
  setVisible(element.closest("[data-fact]") ?? element, text);
  setText(element, text || "");
}

/** Link to a page of Airflow, whose root is the parent of this page; hide a link without a URL. */
export function setLink(link, url) {
  const hasUrl = typeof url === "string"; // "" is Airflow's root
  setVisible(link, hasUrl);
  if (hasUrl) setAttribute(link, "href", new URL(`../${url}`, document.baseURI).href);
}

/** Show a time as the text `format` has for it, and in full on hover; null hides it. */
export function setTime(element, epoch, now, format) {
  setOptionalText(element, epoch === null ? null : format(epoch, now, true));
  setAttribute(element, "title", epoch === null ? null : formatAbsolute(epoch, true));
}

/** Show only these items of a list, and create their elements anew if they have changed. */
export function setList(list, items, createItem) {
  const content = JSON.stringify(items);
  if (list.shownContent === content) return;
  list.shownContent = content;
  list.replaceChildren(...items.map(createItem));
}

export function createElement(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Put elements into this order within a list, without moving those in the right place. */
export function reorder(list, elements) {
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

/** One view for each item, kept from response to response by the item's key. */
export class Views {
  #views = new Map();

  constructor(getKey, createView) {
    this.getKey = getKey;
    this.createView = createView;
  }

  /** Update the views, remove those without an item, and return them in the items' order. */
  update(items, now) {
    const previous = this.#views;
    this.#views = new Map();
    for (const item of items) {
      const key = this.getKey(item);
      const view = previous.get(key) ?? this.createView();
      previous.delete(key);
      view.update(item, now);
      this.#views.set(key, view);
    }
    for (const removed of previous.values()) removed.root.remove();
    return this.all;
  }

  get all() {
    return [...this.#views.values()];
  }
}
