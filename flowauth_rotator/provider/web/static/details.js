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
import { copyText } from "./clipboard.js";
import { formatOutcome, joinNames } from "./labels.js";
import { formatAbsolute, formatRelative, formatUpcoming } from "./time.js";

const TIMES = { expires: "expires_at", issued: "issued_at", due: "renew_at", critical: "critical_at" };

/** The details of a token: its dates, its facts and its last rotations. */
export class Details {
  constructor(row) {
    Object.assign(this, cloneTemplate("details"), { row });
    for (const name of ["service", "alert"]) {
      const button = this.parts[`${name}Copy`];
      button.addEventListener("click", () => copyText(this.parts[name].textContent, button));
    }
  }

  update(now) {
    const { parts, row } = this;
    const { token } = row;
    for (const part of ["variable", "audience", "owner", "service", "alert"]) {
      setOptionalText(parts[part], token[part]);
    }
    setOptionalText(parts.newest, describeNewest(token, row.precise));
    setOptionalText(parts.formerName, token.former_name);
    setList(parts.roles, token.scopes.length ? token.scopes : token.roles, createRole);
    setVisible(parts.rolesFact, token.roles.length);
    setList(parts.scheduledDags, token.scheduled_dags, createDag);
    setVisible(parts.scheduledDags.closest("[data-fact]"), token.scheduled_dags.length);
    this.#updateRequest(now);
    this.#updateRehearsal(now);
    this.#updateHistory();
    this.tick(now);
  }

  tick(now) {
    const { parts, row } = this;
    for (const [part, key] of Object.entries(TIMES)) {
      const epoch = row.token[key];
      setOptionalText(parts[part], epoch && formatRelative(epoch, now, row.precise));
      setText(parts[`${part}At`], epoch ? formatAbsolute(epoch, row.precise) : "");
    }
    const next = row.token.next_check_at;
    setOptionalText(parts.nextCheck, next && formatUpcoming(next, now, row.precise));
    setText(parts.nextCheckAt, next ? formatAbsolute(next, row.precise) : "");
    for (const cell of parts.rotations.querySelectorAll("[data-epoch]")) {
      setText(cell, formatRelative(Number(cell.dataset.epoch), now));
    }
  }

  #updateRequest(now) {
    const { parts, row } = this;
    const { run } = row.token;
    const ended = run && !run.active;
    setOptionalText(parts.lastRequest, ended ? formatRelative(run.requested_at, now) : null);
    setText(parts.lastRequestAt, ended ? formatAbsolute(run.requested_at) : "");
    setOptionalText(parts.lastRequester, ended && run.requested_by ? run.requested_by : null);
    setLink(parts.lastRun, ended ? run.url : null);
  }

  #updateRehearsal(now) {
    const { parts, row } = this;
    const { last_rehearsal: last } = row.token;
    const result = last?.severity === "ok" ? "succeeded" : "failed";
    setOptionalText(parts.rehearsal, last && `${formatRelative(last.at, now)}, ${result}`);
    setText(parts.rehearsalAt, last ? formatAbsolute(last.at) : "");
    setLink(parts.rehearsalLog, last?.url);
  }

  #updateHistory() {
    const { parts, row } = this;
    const { rotations } = row.token;
    setVisible(parts.history, rotations.length);
    setVisible(parts.noHistory, !rotations.length);
    setList(parts.rotations, rotations, createRotation);
  }
}

function createRotation(rotation) {
  const line = document.createElement("tr");
  setAttribute(line, "data-severity", rotation.severity);
  const when = createElement("td", "");
  when.append(
    createElement("span", "", { "data-epoch": rotation.at }),
    createElement("span", formatAbsolute(rotation.at), { class: "quiet" }),
  );
  const outcome = createElement("td", "");
  outcome.append(createElement("span", formatOutcome(rotation.outcome), { class: "outcome" }));
  if (rotation.message && rotation.severity !== "ok") outcome.title = rotation.message;
  const log = createElement("td", "");
  if (rotation.url) {
    const link = createElement("a", "Log");
    link.append(createElement("span", ` of ${formatAbsolute(rotation.at)}`, { class: "visually-hidden" }));
    setLink(link, rotation.url);
    log.append(link);
  }
  const who = createElement("td", "");
  who.append(createElement("bdi", describeRequester(rotation)));
  line.append(when, outcome, who, log);
  return line;
}

function describeRequester({ requested_by: user, run_id: run }) {
  if (user) return user;
  if (!run) return "";
  if (run.startsWith("renew-")) return "This page";
  return run.startsWith("manual__") ? "Manual run" : "Schedule";
}

function createRole(role) {
  const item = document.createElement("li");
  if (typeof role === "string") item.append(createElement("bdi", role));
  else {
    const scopes = joinNames(role.scopes, 8) || "no scopes";
    item.append(createElement("bdi", role.name), createElement("span", scopes, { class: "quiet" }));
    item.lastChild.title = role.scopes.join(", ");
  }
  return item;
}

function createDag({ dag_id: id, url }) {
  const item = document.createElement("li");
  const link = createElement("a", id);
  setLink(link, url);
  item.append(link);
  return item;
}

function describeNewest({ expires_at: expires, newest_issued_expires_at: newest }, precise) {
  if (newest === null || expires === null) return null;
  if (newest <= expires) return "the newest token is in use";
  return `a newer token, which expires ${formatAbsolute(newest, precise)}, is not in use`;
}
