/** The requests to the API of this page. */

import { makeShowable } from "./labels.js";

const VERSION = 3; // of the API
const TIMEOUT = 20000; // ms for one response

export const fetchOverview = () => callApi("api/tokens");

export const requestRenewal = (token, minutes) => postRequest(token, { lifetime_minutes: minutes });

export const requestRehearsal = (token) => postRequest(token, { dry_run: true });

function postRequest(token, body) {
  return callApi(`api/tokens/${encodeURIComponent(token.variable)}/renew`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Requested-With": "flowauth-rotator" },
    body: JSON.stringify({ ...body, expires_at: token.expires_at }),
  });
}

/** Describe a response that is not a success. */
export function describeFailure({ status, body }) {
  if (body.message) return body.message;
  if (status === 401) return "You have been signed out.";
  if (status === 0) return "Airflow did not respond. If the run has started, it appears here.";
  return `Airflow returned an error (HTTP ${status}).`;
}

/** Call the API. Status 0 stands for an unusable response; a redirect to a sign-in is a 401. */
async function callApi(url, options = {}) {
  try {
    const signal = AbortSignal.timeout(TIMEOUT);
    const response = await fetch(url, { ...options, signal, redirect: "manual" });
    if (response.type === "opaqueredirect") return { status: 401, body: {} };
    const body = parseBody(await response.text());
    const isUsable = !response.ok || body.version === VERSION;
    return isUsable ? { status: response.status, body } : { status: 0, body: {} };
  } catch {
    return { status: 0, body: {} };
  }
}

/** Parse a response, whose texts are then safe to show; one that is not JSON is an empty object. */
function parseBody(text) {
  try {
    return JSON.parse(text, makeShowable) ?? {};
  } catch {
    return {};
  }
}
