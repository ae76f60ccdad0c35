/** The result of the last renewal that an operator requested, as an event of its own. */

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
 * @returns {{ok: boolean, text: string, hint: string, url: string|null}|null}
 */
export function describeRequest(row, now, { isNew = false } = {}) {
  const { error, rotations, run } = row.token;
  if (!run || run.active) return null;
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

/** `Renewed: expires Sun 16:39, 18 h later than before.` */
function describeSuccess({ expires_at: expires }, rotation, before, now) {
  if (expires === null || !RENEWALS.has(rotation?.outcome)) return null;
  const verb = rotation.outcome === "adopted" ? "Newer token found and stored" : "Renewed";
  const gain = before === null ? 0 : expires - before;
  const later = gain >= 60 ? `, ${formatDuration(gain)} later than before` : "";
  return `${verb}: expires ${formatDay(expires, now)}${later}.`;
}

function describeSubject(run, own) {
  if (own) return "Your request";
  return run.requested_by ? `The request of ${run.requested_by}` : "The last request";
}

function describeVerb(outcome) {
  return outcome === "refused" || outcome === "capped" ? "was refused" : "failed";
}

function findOwnRun(runId) {
  return ownRuns.find(([id]) => id === runId);
}
