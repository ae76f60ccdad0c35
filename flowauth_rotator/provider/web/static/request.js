/** The result of the last renewal or rehearsal that an operator requested, as its own event. */

import { RENEWALS } from "./labels.js";
import { load, save } from "./storage.js";
import { formatDay, formatDuration, localizeTimes } from "./time.js";

const RECENT = 3600; // seconds for which the result of another user's request is shown
const MOST_RUNS = 50;

const ownRuns = load("runs", []); // that this tab started: [run_id, expiry before]

/** Note a run that this tab started. */
export function noteOwnRun(run, expiryBefore) {
  if (!run || findOwnRun(run.run_id)) return;
  ownRuns.push([run.run_id, expiryBefore]);
  save("runs", ownRuns.slice(-MOST_RUNS));
}

/**
 * Describe the result of the last request; null if there is none or it is of no interest any more.
 *
 * @returns {{ok: boolean, text: string, hint: string, url: string|null, findings?: object[]}|null}
 */
export function describeRequest(row, now, { isNew = false } = {}) {
  const { error, rotations, run } = row.token;
  if (!run || run.active) return null;
  if (run.is_rehearsal) return describeRehearsal(row.token, now, isNew);
  const index = rotations.findIndex((rotation) => rotation.run_id === run.run_id);
  const own = findOwnRun(run.run_id);
  if (index > 0 || (index < 0 && rotations[0]?.at > run.requested_at)) return null; // outdated
  const rotation = index < 0 ? null : rotations[index];
  const at = rotation?.at ?? run.requested_at;
  const isFailed = run.state === "failed" || ["warning", "critical"].includes(rotation?.severity);
  if (isFailed && !RENEWALS.has(rotation?.outcome)) {
    const failure = error?.at >= run.requested_at ? error : rotation;
    const message = failure?.message || run.message;
    return {
      ok: false,
      at,
      text: `${describeSubject(run, own)} ${describeVerb(failure?.outcome)}: ${localizeTimes(message)}`,
      hint: localizeTimes(failure?.hint ?? ""),
      url: rotation?.url ?? error?.url ?? run.url,
    };
  }
  if (!isNew && !own && now - at > RECENT) return null;
  const before = own?.[1] ?? rotations[index + 1]?.expires_at ?? null;
  const text = describeSuccess(row.token, rotation, before, now) ?? localizeTimes(run.message);
  return text ? { ok: true, at, text, hint: "", url: rotation?.url ?? run.url } : null;
}

/** The result of a rehearsal with its steps, until another token is in use. */
function describeRehearsal({ last_rehearsal: last, rehearsal_steps: steps, ...token }, now, isNew) {
  const { run } = token;
  const own = findOwnRun(run.run_id);
  const event = last?.run_id === run.run_id ? last : null;
  const at = event?.at ?? run.requested_at;
  const ok = run.state === "success";
  if (token.issued_at > at || (ok && !isNew && !own && now - at > RECENT)) return null;
  const message = localizeTimes(run.message);
  const findings = event ? steps.map((text) => ({ ok: true, text: localizeTimes(text) })) : [];
  if (event && !ok) findings.push({ ok: false, text: message });
  const subject = describeSubject(run, own, "rehearsal");
  const failure = event ? "has found a problem." : `failed: ${message}`;
  return {
    ok,
    at,
    text: ok ? message : `${subject} ${failure}`,
    hint: token.hint.includes(event?.hint ?? "") ? "" : localizeTimes(event.hint),
    url: event?.url ?? run.url,
    findings,
  };
}

/** `Renewed: expires Sun 16:39, 18 h later than before.` */
function describeSuccess({ expires_at: expires }, rotation, before, now) {
  if (expires === null || !RENEWALS.has(rotation?.outcome)) return null;
  const verb = rotation.outcome === "adopted" ? "Newer token found and stored" : "Renewed";
  const gain = before === null ? 0 : expires - before;
  const later = gain >= 60 ? `, ${formatDuration(gain)} later than before` : "";
  return `${verb}: expires ${formatDay(expires, now)}${later}.`;
}

function describeSubject(run, own, noun = "request") {
  if (own) return `Your ${noun}`;
  return run.requested_by ? `The ${noun} of ${run.requested_by}` : `The last ${noun}`;
}

function describeVerb(outcome) {
  return outcome === "refused" || outcome === "capped" ? "was refused" : "failed";
}

function findOwnRun(runId) {
  return ownRuns.find(([id]) => id === runId);
}
