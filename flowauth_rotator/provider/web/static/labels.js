/** The labels and sentences of the page. */

import { formatDuration, localizeTimes } from "./time.js";

const IDENTIFIERS = new Set(["variable", "dag_id", "dag_ids", "run_id"]);
const BIDIRECTIONAL = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const CONTROL = /[\x00-\x1f\x7f-\x9f\u2028\u2029]/g;

const LABELS = { ok: "OK", new: "First check pending" };

/** What a rotation did, or why it failed. */
const OUTCOMES = {
  healthy: "Not due",
  rotated: "Renewed",
  adopted: "Newer token found and stored",
  superseded: "Already renewed by another run",
  missing: "The Variable is empty",
  malformed: "Not a valid token",
  expired: "Expired",
  shadowed: "Another source hides the Variable",
  conflict: "The Variable was changed meanwhile",
  refused: "Refused by the issuer",
  capped: "Lifetime limited by the issuer",
  rejected: "The new token was rejected",
  unavailable: "The issuer did not respond",
  budget_exhausted: "Too many requests to the issuer",
};
export const RENEWALS = new Set(["rotated", "adopted"]);

/** A reviver for JSON: make texts safe to show, as `core/text.py` does, except identifiers. */
export function makeShowable(key, value) {
  if (typeof value !== "string" || IDENTIFIERS.has(key)) return value;
  return value.replace(BIDIRECTIONAL, "").replace(CONTROL, " ");
}

/** Format a state, a condition or an outcome as a label: `Budget exhausted`. */
export function formatLabel(state) {
  return LABELS[state] ?? capitalize(state).replaceAll("_", " ");
}

/** Format the state of a token; one that is healthy and needs attention has its severity. */
export function formatState({ severity, state }) {
  return formatLabel(state === "healthy" && severity !== "ok" ? severity : state);
}

export function formatOutcome(outcome) {
  return OUTCOMES[outcome] ?? formatLabel(outcome);
}

export function capitalize(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export const pluralize = (count, singular, plural) => `${count} ${count === 1 ? singular : plural}`;

/** Write clauses or sentences as one text that ends with a full stop. */
export function formatSentence(text) {
  const trimmed = localizeTimes(text).trim();
  const sentence = /^[a-z]+[ ,:]/.test(trimmed) ? capitalize(trimmed) : trimmed; // not an identifier
  return sentence && !/[.!?]$/.test(sentence) ? `${sentence}.` : sentence;
}

/** Describe the condition of a rotation DAG; an empty text if it is OK. */
export function describeDag(dag) {
  if (dag.condition === "ok") return "";
  if (dag.condition === "new") return `First check pending. ${dag.hint}`;
  if (dag.condition === "paused") {
    return "Paused: tokens are not being renewed. Unpause to resume.";
  }
  const isStopped = ["missing", "broken"].includes(dag.condition);
  const message = isStopped
    ? `${formatLabel(dag.condition)}: tokens are not being renewed`
    : dag.message;
  return `${formatSentence(message)} ${localizeTimes(dag.hint)}`.trim();
}

/** Format a schedule: a cron expression, or the seconds between two checks. */
export function formatSchedule(schedule) {
  return typeof schedule === "number" ? `every ${formatDuration(schedule, true)}` : schedule;
}

/** `runner, viewer, user and 3 more`. */
export function joinNames(names, limit = 3) {
  const rest = names.length - limit;
  return rest > 1 ? `${names.slice(0, limit).join(", ")} and ${rest} more` : names.join(", ");
}
