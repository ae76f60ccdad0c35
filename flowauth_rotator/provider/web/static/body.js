import { Details } from "./details.js";
import {
  cloneTemplate,
  createElement,
  setAttribute,
  setLink,
  setList,
  setOptionalText,
  setText,
  setVisible,
} from "./dom.js";
import { formatOutcome, formatSentence } from "./labels.js";
import { RenewalForm } from "./renewal_form.js";
import { describeRequest } from "./request.js";
import { formatDuration, formatRelative, localizeTimes } from "./time.js";

const STEPS = ["queued", "survey", "rotate", "report"];

/** What is below the line of a row: the problem, the renewal and, if it is opened, the details. */
export class Body {
  constructor(row) {
    Object.assign(this, cloneTemplate("body"), { row });
    this.root.id = `body-${row.number}`;
    this.form = new RenewalForm(row, this.parts);
    this.details = null;
  }

  update(now) {
    const { row } = this;
    this.#updateProblem(now);
    this.#updateProgress();
    this.#updateRequest(now);
    this.form.update(now);
    if (row.isExpanded && !this.details) {
      this.details = new Details(row);
      this.root.append(this.details.root);
    }
    if (this.details) {
      setVisible(this.details.root, row.isExpanded);
      if (row.isExpanded) this.details.update(now);
    }
    this.tick(now);
  }

  tick(now) {
    if (this.row.isExpanded) this.details?.tick(now);
    const { error } = this.row.token;
    if (!error) return;
    setText(this.parts.failureTime, formatRelative(error.at, now));
    setOptionalText(this.parts.since, describeStreak(this.row.token, now));
  }

  #updateProblem(now) {
    const { parts, row } = this;
    const { token } = row;
    const { error, runbook, severity } = token;
    // A failure of a request that a healthy token survived is shown as the event of that request.
    const isFailure = Boolean(error) && severity !== "ok" && !row.isBusy;
    setVisible(parts.failure, isFailure);
    if (isFailure) {
      setText(parts.failureHead, formatOutcome(error.outcome));
      setText(parts.failureMessage, localizeTimes(error.message));
      setLink(parts.failureLog, error.url);
    }
    setOptionalText(parts.reason, formatSentence(token.reasons.join("; ")));
    const hint = token.hint || (isFailure ? error.hint : "");
    setText(parts.hint, localizeTimes(hint));
    setVisible(parts.todo, hint || runbook);
    const isRepeated = !token.renewal.possible && token.renewal.why_not.includes(token.forecast);
    setOptionalText(parts.forecast, isRepeated ? null : localizeTimes(token.forecast));
    setVisible(parts.unknownName, !token.name_is_known);
    setVisible(parts.runbook, runbook);
    if (runbook) {
      setText(parts.runbook, `Runbook: ${runbook.text}`);
      setLink(parts.runbook, runbook.url);
    }
  }

  #updateProgress() {
    const { parts, row } = this;
    const { run } = row.token;
    setVisible(parts.progress, row.isBusy);
    if (!row.isBusy) return;
    const requested = row.isRequesting ? null : run;
    const fallback = requested?.state === "queued" ? "queued" : null;
    const step = requested?.step ?? fallback;
    const text = row.isRequesting ? "Sending the request to Airflow." : run.message;
    setText(parts.progressText, text || "Renewing.");
    setText(parts.mainStep, row.isRehearsing ? "Rehearse" : "Renew");
    setOptionalText(parts.requestedBy, requested?.requested_by);
    setLink(parts.run, requested?.url);
    const current = STEPS.indexOf(step);
    [...parts.steps.children].forEach((item, index) => {
      setAttribute(item, "aria-current", index === current ? "step" : null);
      item.classList.toggle("done", index < current);
    });
  }

  #updateRequest(now) {
    const { parts, row } = this;
    const result = row.isBusy ? null : describeRequest(row, now);
    const isRepeated = result && !result.ok && !parts.failure.hidden;
    setVisible(parts.event, result && !isRepeated);
    if (result) {
      setAttribute(parts.event, "data-result", result.ok ? "success" : "failure");
      setText(parts.eventText, result.text);
      setList(parts.findings, result.findings ?? [], createFinding);
      setVisible(parts.findings, result.findings?.length);
      setOptionalText(parts.eventHint, result.hint);
      setText(parts.eventTime, formatRelative(result.at, now));
      setLink(parts.eventLog, result.url);
    }
    setOptionalText(parts.requestError, row.isBusy ? null : row.requestError?.text);
  }
}

function createFinding({ ok, text }) {
  const item = createElement("li", text, { "data-result": ok ? "success" : "failure" });
  item.prepend(createElement("span", ok ? "Works: " : "Fails: ", { class: "visually-hidden" }));
  return item;
}

/** `Failing for 3 h, 5 attempts`; null for a single attempt. */
function describeStreak({ rotations }, now) {
  const end = rotations.findIndex((rotation) => rotation.severity === "ok");
  const failed = end < 0 ? rotations : rotations.slice(0, end);
  if (failed.length < 2) return null;
  const since = formatDuration(now - failed[failed.length - 1].at);
  return `Failing for ${since}, ${failed.length} attempts.`;
}
