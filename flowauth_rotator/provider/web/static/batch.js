/** The renewal of several tokens: a selection, a confirmation, and its progress. */

import { byId, createElement, setAttribute, setList, setText, setVisible } from "./dom.js";
import { pluralize } from "./labels.js";
import { describeRequest } from "./request.js";

const AT_A_TIME = 2;

/** The panel below the toolbar. Its steps: select, confirm, run, done. */
export class Batch {
  /** @param page `rows()` lists all rows, `renew(row, minutes)` requests a renewal. */
  constructor(page) {
    this.page = page;
    this.step = null;
    this.queue = [];
    this.started = [];
    this.results = []; // {row, ok, text}
    const on = (id, action) => byId(id).addEventListener("click", () => action());
    on("batch-open", () => this.#show(this.step ? null : "select"));
    on("select-attention", () => this.#select((row) => row.token.severity !== "ok"));
    on("select-shown", () => this.#select((row) => !row.root.hidden));
    on("select-none", () => this.#select(() => false));
    on("batch-next", () => this.selected.length && this.#show("confirm"));
    on("batch-cancel", () => this.#show(null));
    on("batch-back", () => this.#show("select"));
    on("batch-start", () => this.#start());
    on("batch-stop", () => this.#stop());
    on("batch-close", () => this.#show(null));
  }

  get selected() {
    return this.page.rows().filter((row) => row.parts.select.checked && isRenewable(row));
  }

  /** Update the panel after a response, a selection or the end of a renewal. */
  update() {
    for (const row of this.page.rows()) {
      row.parts.select.disabled = !isRenewable(row);
      row.parts.selection.title = row.token.renewal.why_not;
    }
    const count = this.selected.length;
    setText(byId("selected-count"), `${count} selected`);
    const tokens = pluralize(count, "token", "tokens");
    setText(byId("batch-next"), count ? `Renew ${tokens} …` : "Renew …");
    setAttribute(byId("batch-next"), "aria-disabled", count ? null : "true");
    setText(byId("batch-question"), `Renew ${tokens}?`);
    setText(byId("batch-start"), `Renew ${tokens}`);
    if (this.step === "run") this.#advance();
  }

  #show(step) {
    const focused = byId("batch").contains(document.activeElement);
    this.step = step;
    document.body.classList.toggle("selecting", step === "select");
    setVisible(byId("batch"), step);
    for (const part of byId("batch").children) setVisible(part, part.dataset.step === step);
    setAttribute(byId("batch-open"), "aria-expanded", String(Boolean(step)));
    if (step === null) this.#select(() => false);
    this.update();
    const part = byId("batch").querySelector(`[data-step="${step}"]`);
    if (part) part.focus();
    else if (focused) byId("batch-open").focus();
  }

  #select(choose) {
    for (const row of this.page.rows()) row.parts.select.checked = isRenewable(row) && choose(row);
    this.update();
  }

  #start() {
    Object.assign(this, { queue: this.selected, started: [], results: [] });
    this.total = this.queue.length;
    this.#show("run");
  }

  #stop() {
    this.total -= this.queue.length;
    this.queue = [];
    this.update();
  }

  #advance() {
    for (const row of this.started.filter((each) => !each.isBusy)) this.#finish(row);
    while (this.started.length < AT_A_TIME && this.queue.length) this.#renew(this.queue.shift());
    const done = this.results.length;
    const failed = this.results.filter((result) => !result.ok).length;
    const isDone = !this.started.length && !this.queue.length;
    const running = this.started.map((row) => row.token.name).join(" and ");
    setText(
      byId("batch-text"),
      `${isDone ? "Finished: " : ""}${done - failed} of ${pluralize(this.total, "token", "tokens")} renewed` +
        `${failed ? `, ${failed} failed` : ""}.${running ? ` Renewing ${running}.` : ""}`,
    );
    byId("batch-progress").max = this.total || 1;
    byId("batch-progress").value = done;
    setList(byId("batch-results"), this.results, createResult);
    setVisible(byId("batch-stop"), this.queue.length);
    setVisible(byId("batch-close"), isDone);
  }

  #renew(row) {
    this.started.push(row);
    this.page.renew(row, null);
  }

  #finish(row) {
    this.started = this.started.filter((each) => each !== row);
    const event = row.requestError
      ? { ok: false, text: row.requestError.text }
      : describeRequest(row, row.now, { isNew: true });
    const { name, variable } = row.token;
    const { ok = true, text = "Ended." } = event ?? {};
    this.results.unshift({ name, variable, ok, text });
  }
}

function isRenewable(row) {
  return row.token.renewal.possible && !row.isBusy;
}

function createResult({ name, variable, ok, text }) {
  const item = createElement("li", "", { "data-result": ok ? "success" : "failure" });
  const link = createElement("a", "", { href: `#${encodeURIComponent(variable)}` });
  link.append(createElement("bdi", name));
  item.append(link, ` ${text}`);
  return item;
}
