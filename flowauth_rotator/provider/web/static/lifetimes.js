/** The lifetimes that a renewal may request, in minutes. */

import { formatDuration } from "./time.js";

const COMMON = [60, 360, 720, 1440, 10080, 43200];

/**
 * Return the bounds of a request: `least`, and `longest`, which is null while it is not known.
 *
 * A successor must expire later than the token in use.
 */
export function computeBounds(token, now) {
  const { shortest_minutes: shortest, longest_minutes: longest } = token.renewal;
  const remaining = Math.floor((token.expires_at - now) / 60) + 1;
  return { least: Math.max(1, shortest ?? 1, remaining), longest };
}

/** Return the lifetimes to offer beside the maximum. Nothing beyond a granted lifetime is offered. */
export function listLifetimes(token, { least, longest }) {
  const granted = Math.round((token.expires_at - token.issued_at) / 60);
  return COMMON.filter(
    (minutes) => minutes >= least && (longest === null ? minutes <= granted : minutes < longest),
  );
}

/** Describe the bounds: `60 to 1440 minutes (at most 1 d)`. */
export function describeBounds({ least, longest }) {
  if (longest === null) return `${least} minutes or more. The issuer’s maximum is not known yet.`;
  return `${least} to ${longest} minutes (at most ${formatDuration(longest * 60)}).`;
}

/** Return an error message for a number of minutes; an empty text if it is valid. */
export function validateMinutes(text, { least, longest }) {
  const isWhole = /^0*[1-9]\d{0,6}$/.test(text.trim());
  const minutes = Number(text);
  if (isWhole && minutes >= least && (longest === null || minutes <= longest)) return "";
  if (isWhole && longest !== null && minutes > longest) {
    return `The issuer grants at most ${longest} minutes (${formatDuration(longest * 60)}).`;
  }
  const reason = isWhole && least > 1 ? " Less would not outlast the token in use." : "";
  return `Enter whole minutes, ${describeBounds({ least, longest })}${reason}`;
}
