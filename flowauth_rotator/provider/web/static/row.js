import { create, lead, mark, say, show, stamp, tell } from "./dom.js";
import { fromNow, inWords, isShort, localMoment, localTime, utcMoment } from "./time.js";
import { label, lifetimes, listed, objection } from "./words.js";

const HIGHLIGHT = 4000; // ms

let rows = 0;

/** One token and what may be done with it. */
export class Row {
  /**
   * @param renew asks for a renewal: `(row, minutes)`.
   * @param announce says something to those who do not see it.
   */
  constructor(renew, announce) {
    Object.assign(this, stamp("row"), { renew, announce });
    this.asking = false;
    this.problem = null; // what the last click was answered with: {text, at}
    this.watched = null; // the run whose end will be announced
    this.#nameParts();
    this.parts.form.addEventListener("submit", (event) => this.#submit(event));
    this.parts.details.addEventListener("toggle", () => this.#scopes());
    this.parts.lifetime.addEventListener("change", () => this.#picked());
    this.parts.minutes.addEventListener("input", () => this.#typed());
  }

  get key() {
    return keyOf(this.token);
  }

  get active() {
    return Boolean(this.token.run?.active);
  }

  update(token, now) {
    this.token = token;
    this.precise = isShort(token);
    mark(this.root, "data-severity", token.severity);
    this.root.classList.toggle("timeless", token.expires_at === null);
    this.#identity();
    this.#life(now);
    this.#history(now);
    this.#picker(now);
    this.refresh(now);
    this.#watch(now);
  }

  /** What depends on the clock alone. */
  tick(now) {
    const { parts, token } = this;
    say(parts.left, timeLeft(token.expires_at, now, this.precise));
    tell(parts.due, pointInLife("due", token.renew_at, now, this.precise));
    tell(parts.critical, pointInLife("critical", token.critical_at, now, this.precise));
    parts.bar.style.setProperty("--elapsed", this.#place(now));
  }

  /** What a click, a run or their end changes. */
  refresh(now) {
    const { parts, token } = this;
    const busy = this.asking || this.active;
    if (this.problem && token.last_rotation?.at > this.problem.at) this.problem = null;

    const possible = token.renewal.possible;
    mark(parts.renew, "aria-disabled", busy || !possible ? "true" : null);
    if (!possible && !busy && parts.picker.contains(document.activeElement)) parts.renew.focus();
    show(parts.picker, possible || busy);
    show(parts.impossible, !possible && !busy);
    say(parts.whyNot, token.renewal.why_not);
    say(parts.wayOut, token.renewal.way_out?.text ?? "");
    lead(parts.wayOut, token.renewal.way_out?.url);

    show(parts.progress, busy);
    say(parts.progressSentence, this.asking ? "Asking Airflow." : (token.run?.sentence ?? ""));
    tell(parts.askedBy, !this.asking && token.run?.asked_by);
    lead(parts.run, !this.asking && token.run?.url);

    tell(parts.problem, busy ? null : (this.problem?.text ?? null));
    this.#failure(busy, now);
  }

  /** Let each control bear the token's name too: "Renew AIRFLOW". */
  #nameParts() {
    const { parts } = this;
    const number = ++rows;
    const refer = (element, attribute, ...names) => {
      for (const name of names) parts[name].id = `${name}-${number}`;
      mark(element, attribute, names.map((name) => parts[name].id).join(" "));
    };
    refer(parts.renew, "aria-labelledby", "renew", "name");
    refer(parts.renew, "aria-describedby", "whyNot");
    refer(parts.lifetime, "aria-labelledby", "lifetimeLabel", "name");
    refer(parts.minutes, "aria-labelledby", "minutesLabel", "name");
    refer(parts.minutes, "aria-describedby", "minutesProblem", "minutesHint");
  }

  #identity() {
    const { parts, token } = this;
    for (const part of ["name", "variable", "audience", "user"]) {
      tell(parts[part], token[part]);
      mark(parts[part], "title", token[part]);
    }
    say(parts.state, label(token.state));
    const names = token.roles.map((role) => role.name);
    tell(parts.roles, listed(names));
    mark(parts.roles, "title", names.join(", "));
    this.#scopes();
  }

  /** The scopes of each role, for those who have opened them. */
  #scopes() {
    const { parts, token } = this;
    const roles = JSON.stringify(token.roles);
    if (!parts.details.open || roles === this.shownRoles) return;
    this.shownRoles = roles;
    parts.scopes.replaceChildren(
      ...token.roles.flatMap((role) => [
        create("dt", role.name),
        create("dd", role.scopes.join(", ") || "no scopes"),
      ]),
    );
  }

  #life(now) {
    const { parts, precise, token } = this;
    const { expires_at: expires, issued_at: issued } = token;
    tell(parts.expires, expires && localMoment(expires, precise));
    tell(parts.expiresUtc, expires && utcMoment(expires, precise));
    tell(parts.issued, issued && localTime(issued, now, precise));
    mark(parts.issued, "title", issued && utcMoment(issued, true));
    show(parts.bar, expires !== null && issued !== null);
    parts.bar.style.setProperty("--due", this.#place(token.renew_at));
    parts.bar.style.setProperty("--critical", this.#place(token.critical_at));
    mark(parts.due, "title", token.renew_at && utcMoment(token.renew_at, precise));
    mark(parts.critical, "title", token.critical_at && utcMoment(token.critical_at, precise));
    this.tick(now);
  }

  /** Where a moment is between issue and expiry, as a share from 0 to 1. */
  #place(epoch) {
    const { expires_at: expires, issued_at: issued } = this.token;
    const share = (epoch - issued) / (expires - issued);
    return Math.min(Math.max(share || 0, 0), 1).toFixed(4);
  }

  #history(now) {
    const { parts, precise, token } = this;
    const { error, last_rotation: last, newest_issued_at_issuer: newest, run } = token;
    tell(parts.reason, error?.reason === token.reason ? null : token.reason);
    tell(parts.advice, error?.advice === token.advice ? null : token.advice);

    tell(parts.lastRotation, last && `${label(last.outcome)}, ${localTime(last.at, now, precise)}`);
    mark(parts.lastRotation, "title", last && utcMoment(last.at, true));
    lead(parts.lastTask, last?.url);

    const ended = run && !run.active;
    const asked = ended && `${label(run.state)}, ${localTime(run.asked_at, now, precise)}`;
    tell(parts.lastAsked, asked || null);
    tell(parts.lastAskedBy, ended ? run.asked_by : null);
    lead(parts.lastRun, ended && run.url);

    tell(parts.nextCheck, token.next_check_at && localTime(token.next_check_at, now, precise));
    mark(parts.nextCheck, "title", token.next_check_at && utcMoment(token.next_check_at, true));
    tell(parts.newest, newestInWords(newest, token.expires_at, precise));
  }

  #picker(now) {
    const { parts, token } = this;
    const { longest_minutes: longest, usual_minutes: usual } = token.renewal;
    this.least = Math.max(1, Math.floor((token.expires_at - now) / 60) + 1);
    const offered = lifetimes(this.least, longest);
    const shown = JSON.stringify([offered, longest, usual]);
    if (shown === this.shownLifetimes) return;
    this.shownLifetimes = shown;
    const chosen = parts.lifetime.value;
    const maximum = longest === null ? "maximum" : `maximum (${inWords(longest * 60)})`;
    const first = usual === null ? maximum : `as it is set (${inWords(usual * 60)})`;
    parts.lifetime.replaceChildren(
      create("option", first, { value: "usual" }),
      ...offered.map((value) => create("option", inWords(value * 60), { value })),
      create("option", "other…", { value: "other" }),
    );
    parts.lifetime.value = chosen;
    if (parts.lifetime.selectedIndex < 0) parts.lifetime.value = "usual";
    this.#picked();
  }

  #picked() {
    show(this.parts.other, this.parts.lifetime.value === "other");
    this.#typed();
  }

  #typed() {
    const { minutes, minutesHint } = this.parts;
    const wrong = this.#objection();
    say(minutesHint, wrong ? "" : inWords(Number(minutes.value) * 60));
    if (!wrong || minutes.hasAttribute("aria-invalid")) this.#object(minutes.value && wrong);
  }

  #objection() {
    return objection(this.parts.minutes.value, this.least, this.token.renewal.longest_minutes);
  }

  #object(objectionToMinutes) {
    const { minutes, minutesProblem } = this.parts;
    mark(minutes, "aria-invalid", objectionToMinutes ? "true" : null);
    tell(minutesProblem, objectionToMinutes);
  }

  #submit(event) {
    event.preventDefault();
    const { parts } = this;
    if (parts.renew.hasAttribute("aria-disabled")) return;
    const picked = parts.lifetime.value;
    if (picked === "other") {
      const wrong = this.#objection();
      this.#object(wrong);
      if (wrong) {
        parts.minutes.focus();
        return;
      }
    }
    const typed = { usual: null, other: Number(parts.minutes.value) };
    this.renew(this, picked in typed ? typed[picked] : Number(picked));
  }

  #failure(busy, now) {
    const { parts, precise, token } = this;
    const { error } = token;
    show(parts.failure, error && !busy);
    if (!error) return;
    const outcome = error.outcome ? `: ${label(error.outcome).toLowerCase()}` : "";
    say(parts.failureHead, `The last attempt failed${outcome}, ${localTime(error.at, now, precise)}.`);
    tell(parts.failureReason, error.reason);
    tell(parts.failureAdvice, error.advice ?? "");
    lead(parts.failureTask, error.url);
  }

  /** Say how a run goes on that was seen to be under way. */
  #watch(now) {
    const { run } = this.token;
    const watched = this.watched !== null && this.watched === run?.run_id;
    this.watched = this.active ? run.run_id : null;
    if (!watched || this.active) return;
    const { error } = this.token;
    if (error?.at >= run.asked_at) {
      this.announce(this.token, `was not renewed. ${error.reason}`);
      return;
    }
    this.announce(this.token, `was renewed. ${run.sentence}`);
    this.highlight();
  }

  /** Let the eye find it. */
  highlight() {
    this.root.classList.add("fresh");
    setTimeout(() => this.root.classList.remove("fresh"), HIGHLIGHT);
  }
}

export function keyOf(token) {
  return JSON.stringify([token.dag_id, token.variable]);
}

function timeLeft(expires, now, precise) {
  if (expires === null) return "Time left unknown";
  const words = inWords(expires - now, precise);
  return expires > now ? `${words} left` : `Expired ${words} ago`;
}

function pointInLife(word, epoch, now, precise) {
  if (epoch === null) return null;
  return `${word} ${fromNow(epoch, now, precise)}`;
}

function newestInWords(newest, expires, precise) {
  if (newest === null || expires === null) return null;
  if (newest <= expires) return "in use is the newest issued";
  return `a newer one, until ${localMoment(newest, precise)}, was issued and is not in use`;
}
