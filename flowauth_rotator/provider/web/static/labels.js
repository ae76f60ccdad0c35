/** The labels and sentences of the page. */

import { formatDuration } from "./time.js";

const IDENTIFIERS = new Set(["variable", "dag_id", "run_id"]);
const BIDIRECTIONAL = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
const CONTROL = /[\x00-\x1f\x7f-\x9f\u2028\u2029]/g;

const LABELS = {
  ok: "OK",
  budget_exhausted: "Budget exhausted",
};

/** A reviver for JSON: make texts safe to show, as `core/text.py` does, except identifiers. */
export function makeShowable(key, value) {
  if (typeof value !== "string" || IDENTIFIERS.has(key)) return value;
  return value.replace(BIDIRECTIONAL, "").replace(CONTROL, " ");
}

/** Format a state, a condition or an outcome as a label: `Budget exhausted`. */
export function formatLabel(state) {
  return LABELS[state] ?? state.charAt(0).toUpperCase() + state.slice(1).replaceAll("_", " ");
}

const pluralize = (count, singular, plural) => `${count} ${count === 1 ? singular : plural}`;

/** Build the summary as a list of parts; a part with a `group` links to that group. */
export function buildSummary(tokens, dags) {
  const failing = dags.filter((dag) => dag.severity !== "ok").length;
  const count = (group) => tokens.filter((token) => token.group === group).length;
  const groups = [
    ["attention", "needs attention", "need attention"],
    ["expired", "has expired", "have expired"],
  ]
    .filter(([group]) => count(group) > 0)
    .map(([group, ...verbs]) => ({ group, text: pluralize(count(group), ...verbs) }));

  const total = tokens.length ? pluralize(tokens.length, "token", "tokens") : "No tokens yet";
  const parts = [{ text: total }];
  if (groups.length) parts.push({ text: ": " }, ...joinParts(groups, { text: ", " }));
  else if (tokens.length) parts.push({ text: ", all OK" });
  parts.push({ text: "." });
  if (failing) {
    const subject = pluralize(failing, "rotation DAG needs", "rotation DAGs need");
    parts.push({ text: ` ${dags.length === 1 ? "The rotation DAG needs" : subject} attention.` });
  }
  return parts;
}

function joinParts(items, separator) {
  return items.flatMap((item, index) => (index ? [separator, item] : [item]));
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

/** Return the lifetimes to offer, in minutes, from the least to below the longest. */
export function listLifetimes(least, longest) {
  const common = [60, 360, 720, 1440, 10080, 43200];
  return common.filter((minutes) => minutes >= least && (longest === null || minutes < longest));
}

/** Return an error message for a number of minutes; an empty text if it is valid. */
export function validateMinutes(text, least, longest) {
  const isWhole = /^0*[1-9]\d{0,8}$/.test(text.trim());
  const minutes = Number(text);
  if (isWhole && minutes >= least && (longest === null || minutes <= longest)) return "";
  const reason = least > 1 ? ", more than the token in use has left" : "";
  const range = longest === null ? `${least} or more` : `from ${least} to ${longest}`;
  return `Enter whole minutes, ${range}${reason}.`;
}
