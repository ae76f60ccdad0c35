import {
  cloneTemplate,
  createElement,
  setAttribute,
  setLink,
  setOptionalText,
  setText,
  setVisible,
} from "./dom.js";
import { formatLabel, joinNames, listLifetimes, validateMinutes } from "./labels.js";
import {
  formatDateTime,
  formatDuration,
  formatRelative,
  formatTime,
  formatUtc,
  isShortLived,
} from "./time.js";

const HIGHLIGHT_TIME = 4000; // ms

let rowCount = 0;

/** The view of one token and of its renewal. */
export class Row {
  /**
   * @param renew requests a renewal: `(row, minutes)`.
   * @param announce announces a message to screen readers: `(token, message)`.
   */
  constructor(renew, announce) {
    Object.assign(this, cloneTemplate("row"), { renew, announce });
    this.isRequesting = false;
    this.requestError = null; // of the last click: {text, at}
    this.watchedRunId = null; // the run whose end will be announced
    this.#labelControls();
    this.parts.form.addEventListener("submit", (event) => this.#onSubmit(event));
    this.parts.details.addEventListener("toggle", () => this.#updateScopes());
    this.parts.lifetime.addEventListener("change", () => this.#onLifetimeChange());
    this.parts.minutes.addEventListener("input", () => this.#onMinutesInput());
  }

  get isActive() {
    return Boolean(this.token.run?.active);
  }

  update(token, now) {
    this.token = token;
    this.precise = isShortLived(token);
    setAttribute(this.root, "data-severity", token.severity);
    this.root.classList.toggle("timeless", token.expires_at === null);
    this.#updateIdentity();
    this.#updateValidity(now);
    this.#updateHistory(now);
    this.#updateLifetimes(now);
    this.refresh(now);
    this.#announceEnd();
  }

  /** Update what changes with time alone. */
  tick(now) {
    const { parts, precise, token } = this;
    setText(parts.left, describeTimeLeft(token.expires_at, now, precise));
    setOptionalText(parts.due, describeThreshold("due", token.renew_at, now, precise));
    setOptionalText(parts.critical, describeThreshold("critical", token.critical_at, now, precise));
    parts.bar.style.setProperty("--elapsed", this.#computeFraction(now));
  }

  /** Update what changes with a request or a run. */
  refresh(now) {
    const { isRequesting, parts, token } = this;
    const isBusy = isRequesting || this.isActive;
    if (token.rotations[0]?.at > this.requestError?.at) this.requestError = null;

    const possible = token.renewal.possible;
    setAttribute(parts.renew, "aria-disabled", isBusy || !possible ? "true" : null);
    if (!possible && !isBusy && parts.picker.contains(document.activeElement)) parts.renew.focus();
    setVisible(parts.picker, possible || isBusy);
    setVisible(parts.impossible, !possible && !isBusy);
    setText(parts.whyNot, token.renewal.why_not);
    setText(parts.wayOut, token.renewal.way_out?.text ?? "");
    setLink(parts.wayOut, token.renewal.way_out?.url);

    setVisible(parts.progress, isBusy);
    const run = isRequesting ? { message: "Sending the request to Airflow." } : token.run;
    setText(parts.progressText, run?.message ?? "");
    setOptionalText(parts.requestedBy, run?.requested_by ?? null);
    setLink(parts.run, run?.url);

    setOptionalText(parts.requestError, isBusy ? null : (this.requestError?.text ?? null));
    this.#updateFailure(isBusy, now);
  }

  /** Add the token's name to the accessible name of each control: "Renew AIRFLOW". */
  #labelControls() {
    const { parts } = this;
    const number = ++rowCount;
    const reference = (element, attribute, ...names) => {
      for (const name of names) parts[name].id = `${name}-${number}`;
      setAttribute(element, attribute, names.map((name) => parts[name].id).join(" "));
    };
    reference(parts.renew, "aria-labelledby", "renew", "name");
    reference(parts.renew, "aria-describedby", "whyNot");
    reference(parts.lifetime, "aria-labelledby", "lifetimeLabel", "name");
    reference(parts.minutes, "aria-labelledby", "minutesLabel", "name");
    reference(parts.minutes, "aria-describedby", "minutesError", "minutesHint");
  }

  #updateIdentity() {
    const { parts, token } = this;
    for (const part of ["name", "variable", "audience", "owner"]) {
      setOptionalText(parts[part], token[part]);
      setAttribute(parts[part], "title", token[part]);
    }
    setVisible(parts.unknownName, !token.name_is_known);
    setText(parts.state, formatLabel(token.state));
    setOptionalText(parts.roles, joinNames(token.roles));
    setAttribute(parts.roles, "title", token.roles.join(", "));
    this.#updateScopes();
  }

  /** Show the scopes of each role if the details are open. */
  #updateScopes() {
    const { parts, token } = this;
    const scopes = JSON.stringify(token.scopes);
    if (!parts.details.open || scopes === this.shownScopes) return;
    this.shownScopes = scopes;
    parts.scopes.replaceChildren(
      ...token.scopes.flatMap((role) => [
        createElement("dt", role.name),
        createElement("dd", role.scopes.join(", ") || "no scopes"),
      ]),
    );
  }

  #updateValidity(now) {
    const { parts, precise, token } = this;
    const { critical_at: critical, expires_at: expires, issued_at: issued, renew_at: due } = token;
    setOptionalText(parts.expires, expires && formatDateTime(expires, precise));
    setOptionalText(parts.expiresUtc, expires && formatUtc(expires, precise));
    setOptionalText(parts.issued, issued && formatTime(issued, now, precise));
    setAttribute(parts.issued, "title", issued && formatUtc(issued, true));
    setVisible(parts.bar, expires !== null && issued !== null);
    parts.bar.style.setProperty("--due", this.#computeFraction(due));
    parts.bar.style.setProperty("--critical", this.#computeFraction(critical));
    setAttribute(parts.due, "title", due && formatUtc(due, precise));
    setAttribute(parts.critical, "title", critical && formatUtc(critical, precise));
    this.tick(now);
  }

  /** Return the position of a time between issue and expiry, from 0 to 1. */
  #computeFraction(epoch) {
    const { expires_at: expires, issued_at: issued } = this.token;
    const fraction = (epoch - issued) / (expires - issued);
    return Math.min(Math.max(fraction || 0, 0), 1).toFixed(4);
  }

  #updateHistory(now) {
    const { parts, precise, token } = this;
    const { error, next_check_at: nextCheck, run } = token;
    const last = token.rotations[0];
    const formatEvent = (state, epoch) =>
      `${formatLabel(state)}, ${formatTime(epoch, now, precise)}`;
    setOptionalText(parts.message, isRepeated(token.message, error?.message) ? null : token.message);
    setOptionalText(parts.hint, isRepeated(token.hint, error?.hint) ? null : token.hint);
    setOptionalText(parts.forecast, token.forecast);

    setOptionalText(parts.lastRotation, last ? formatEvent(last.outcome, last.at) : null);
    setAttribute(parts.lastRotation, "title", last ? formatUtc(last.at, true) : null);
    setLink(parts.lastTask, token.rotation_url);

    const ended = run && !run.active;
    setOptionalText(parts.lastRequest, ended ? formatEvent(run.state, run.requested_at) : null);
    setOptionalText(parts.lastRequester, ended ? run.requested_by : null);
    setLink(parts.lastRun, ended && run.url);

    setOptionalText(parts.nextCheck, nextCheck && formatTime(nextCheck, now, precise));
    setAttribute(parts.nextCheck, "title", nextCheck && formatUtc(nextCheck, true));
    setOptionalText(parts.newest, describeNewest(token, precise));
  }

  #updateLifetimes(now) {
    const { parts, token } = this;
    const { longest_minutes: longest, usual_minutes: usual } = token.renewal;
    this.least = Math.max(1, Math.floor((token.expires_at - now) / 60) + 1);
    const offered = listLifetimes(this.least, longest);
    const shown = JSON.stringify([offered, longest, usual]);
    if (shown === this.shownLifetimes) return;
    this.shownLifetimes = shown;
    const chosen = parts.lifetime.value;
    const maximum = longest === null ? "maximum" : `maximum (${formatDuration(longest * 60)})`;
    const first = usual === null ? maximum : `as configured (${formatDuration(usual * 60)})`;
    parts.lifetime.replaceChildren(
      createElement("option", first, { value: "usual" }),
      ...offered.map((value) => createElement("option", formatDuration(value * 60), { value })),
      createElement("option", "other…", { value: "other" }),
    );
    parts.lifetime.value = chosen;
    if (parts.lifetime.selectedIndex < 0) parts.lifetime.value = "usual";
    this.#onLifetimeChange();
  }

  #onLifetimeChange() {
    setVisible(this.parts.other, this.parts.lifetime.value === "other");
    this.#onMinutesInput();
  }

  #onMinutesInput() {
    const { minutes, minutesHint } = this.parts;
    const error = this.#validateMinutes();
    setText(minutesHint, error ? "" : formatDuration(Number(minutes.value) * 60));
    if (error && !minutes.hasAttribute("aria-invalid")) return;
    this.#showMinutesError(minutes.value && error);
  }

  #validateMinutes() {
    const longest = this.token.renewal.longest_minutes;
    return validateMinutes(this.parts.minutes.value, this.least, longest);
  }

  #showMinutesError(error) {
    const { minutes, minutesError } = this.parts;
    setAttribute(minutes, "aria-invalid", error ? "true" : null);
    setOptionalText(minutesError, error);
  }

  #onSubmit(event) {
    event.preventDefault();
    const { parts } = this;
    if (parts.renew.hasAttribute("aria-disabled")) return;
    const choice = parts.lifetime.value;
    if (choice === "other") {
      const error = this.#validateMinutes();
      this.#showMinutesError(error);
      if (error) {
        parts.minutes.focus();
        return;
      }
    }
    const special = { usual: null, other: Number(parts.minutes.value) };
    this.renew(this, choice in special ? special[choice] : Number(choice));
  }

  #updateFailure(isBusy, now) {
    const { parts, precise, token } = this;
    const { error } = token;
    setVisible(parts.failure, error && !isBusy);
    if (!error) return;
    const outcome = formatLabel(error.outcome);
    setText(parts.failureHead, `Last attempt: ${outcome}, ${formatTime(error.at, now, precise)}.`);
    setOptionalText(parts.failureMessage, error.message);
    setOptionalText(parts.failureHint, error.hint);
    setLink(parts.failureTask, error.url);
  }

  /** Announce the end of a run that was active in the previous response. */
  #announceEnd() {
    const { run } = this.token;
    const isWatched = this.watchedRunId !== null && this.watchedRunId === run?.run_id;
    this.watchedRunId = this.isActive ? run.run_id : null;
    if (!isWatched || this.isActive) return;
    const { error } = this.token;
    if (error?.at >= run.requested_at) {
      this.announce(this.token, `was not renewed. ${error.message}`);
      return;
    }
    this.announce(this.token, `was renewed. ${run.message}`);
    this.highlight();
  }

  /** Highlight the row for a few seconds. */
  highlight() {
    this.root.classList.add("fresh");
    setTimeout(() => this.root.classList.remove("fresh"), HIGHLIGHT_TIME);
  }
}

export function getKey(token) {
  return JSON.stringify([token.dag_id, token.variable]);
}

/** Whether the failure beneath the row already says what a text of the row does. */
function isRepeated(text, failure) {
  return Boolean(failure) && text.includes(failure.replace(/\.$/, ""));
}

function describeTimeLeft(expires, now, precise) {
  if (expires === null) return "Time left unknown";
  const duration = formatDuration(expires - now, precise);
  return expires > now ? `${duration} left` : `Expired ${duration} ago`;
}

function describeThreshold(name, epoch, now, precise) {
  if (epoch === null) return null;
  return `${name} ${formatRelative(epoch, now, precise)}`;
}

function describeNewest({ expires_at: expires, newest_issued_expires_at: newest }, precise) {
  if (newest === null || expires === null) return null;
  if (newest <= expires) return "the newest token is in use";
  return `a newer token, which expires ${formatDateTime(newest, precise)}, is not in use`;
}
