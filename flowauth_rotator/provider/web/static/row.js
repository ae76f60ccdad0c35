import { Body } from "./body.js";
import { cloneTemplate, setAttribute, setOptionalText, setText, setVisible } from "./dom.js";
import { formatOutcome, formatSentence, formatState } from "./labels.js";
import { describeRequest } from "./request.js";
import { formatAbsolute, formatDuration, isShortLived } from "./time.js";

const HIGHLIGHT_TIME = 4000; // ms

let rowCount = 0;

/** The view of one token: a line, and a body that is created when it is opened. */
export class Row {
  /**
   * @param actions `renew(row, minutes)` requests a renewal, `rehearse(row)` its rehearsal,
   *   `announce(token, message)` announces a message to screen readers, `select(row)` notes a change
   *   of the selection.
   */
  constructor(actions) {
    Object.assign(this, cloneTemplate("row"), { actions });
    this.number = ++rowCount;
    this.body = null;
    this.isProminent = false; // shown with its problem, without being opened
    this.isExpanded = false;
    this.isRequesting = false;
    this.isRehearsal = false; // what is being requested
    this.requestError = null; // of the last click: {text, at}
    this.expiryBefore = null; // of the token in use when a renewal was requested
    this.watchedRunId = null; // the run whose end will be announced
    this.parts.name.id = `name-${this.number}`;
    this.parts.head.addEventListener("click", (event) => this.#onClick(event));
    this.parts.select.addEventListener("change", () => actions.select(this));
    setAttribute(this.parts.select, "aria-labelledby", `select-label name-${this.number}`);
  }

  get isActive() {
    return Boolean(this.token.run?.active);
  }

  get isBusy() {
    return this.isRequesting || this.isActive;
  }

  /** Whether what the row is busy with is a rehearsal. */
  get isRehearsing() {
    return this.isRequesting ? this.isRehearsal : Boolean(this.token.run?.is_rehearsal);
  }

  get isOpen() {
    return this.isExpanded || this.isProminent;
  }

  update(token, now) {
    this.token = token;
    this.now = now;
    this.precise = isShortLived(token);
    if (token.rotations[0]?.at > this.requestError?.at) this.requestError = null;
    const { parts } = this;
    setAttribute(this.root, "data-severity", token.severity);
    setText(parts.name, token.name);
    setAttribute(parts.name, "title", token.name);
    setText(parts.state, formatState(token));
    const dags = token.dag_ids;
    setText(parts.dag, dags.length > 1 ? `${dags.length} DAGs: ${dags.join(", ")}` : dags[0]);
    setAttribute(parts.dag, "title", dags.join(", "));
    const { critical_at: critical, expires_at: expires, issued_at: issued, renew_at: due } = token;
    setVisible(parts.bar, expires !== null && issued !== null);
    parts.bar.style.setProperty("--due", this.computeFraction(due));
    parts.bar.style.setProperty("--critical", this.computeFraction(critical));
    setAttribute(parts.left, "title", expires && `Expires ${formatAbsolute(expires, true)}`);
    this.refresh(now);
    this.#announceEnd();
  }

  /** Update what changes with a request, a run, or by opening the row. */
  refresh(now) {
    if (this.isOpen && !this.body) {
      this.body = new Body(this);
      this.root.append(this.body.root);
      setAttribute(this.parts.toggle, "aria-controls", this.body.root.id);
    }
    if (this.body) {
      setVisible(this.body.root, this.isOpen);
      if (this.isOpen) this.body.update(now);
    }
    setAttribute(this.parts.toggle, "aria-expanded", String(this.isExpanded));
    this.root.classList.toggle("open", this.isOpen);
    this.tick(now);
  }

  /** Update what changes with time alone. */
  tick(now) {
    this.now = now;
    const { parts, precise, token } = this;
    setText(parts.left, describeTimeLeft(token.expires_at, now, precise));
    parts.bar.style.setProperty("--elapsed", this.computeFraction(now));
    setOptionalText(parts.summary, this.isOpen ? null : this.#summarize(now));
    const isNoted = token.severity !== "ok" || this.isBusy || describeRequest(this, now) !== null;
    this.root.classList.toggle("noted", isNoted);
    if (this.isOpen && this.body) this.body.tick(now);
  }

  setProminent(isProminent) {
    if (this.isProminent === isProminent) return;
    this.isProminent = isProminent;
    this.refresh(this.now);
  }

  expand(isExpanded = true) {
    this.isExpanded = isExpanded;
    this.refresh(this.now);
  }

  /** Return the position of a time between issue and expiry, from 0 to 1. */
  computeFraction(epoch) {
    const { expires_at: expires, issued_at: issued } = this.token;
    const fraction = (epoch - issued) / (expires - issued);
    return Math.min(Math.max(fraction || 0, 0), 1).toFixed(4);
  }

  /** Highlight the row for a few seconds. */
  highlight() {
    this.root.classList.add("fresh");
    setTimeout(() => this.root.classList.remove("fresh"), HIGHLIGHT_TIME);
  }

  #onClick(event) {
    if (event.target.closest("label, a")) return;
    if (event.target.closest("button") || !String(getSelection())) this.expand(!this.isExpanded);
  }

  /** The line of a closed row: why it needs attention, or when it will be renewed. */
  #summarize(now) {
    const { error, message, next_check_at: next, renew_at: due, renewal_check_at } = this.token;
    if (this.isBusy) return this.isRehearsing ? "Rehearsing …" : "Renewing …";
    if (this.token.severity !== "ok") {
      return error ? `${formatOutcome(error.outcome)}: ${error.message}` : formatSentence(message);
    }
    const request = describeRequest(this, now);
    if (request) return request.text;
    const check = due !== null && due <= now ? next : renewal_check_at;
    if (check > now) return `Renewal in ${formatDuration(check - now, this.precise)}`;
    return due > now ? `Renewal due in ${formatDuration(due - now, this.precise)}` : null;
  }

  /** Announce the end of a run that was active in the previous response. */
  #announceEnd() {
    const { run } = this.token;
    const isWatched = this.watchedRunId !== null && this.watchedRunId === run?.run_id;
    this.watchedRunId = this.isActive ? run.run_id : null;
    if (!isWatched || this.isActive) return;
    const result = describeRequest(this, this.now, { isNew: true });
    this.actions.ended(this, result);
    this.highlight();
  }
}

export function getKey(token) {
  return JSON.stringify([token.dag_id, token.variable]);
}

function describeTimeLeft(expires, now, precise) {
  if (expires === null) return "Time left unknown";
  const duration = formatDuration(expires - now, precise);
  return expires > now ? `${duration} left` : `Expired ${duration} ago`;
}
