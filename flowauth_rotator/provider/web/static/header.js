/** The head of the page: how many tokens need attention, and which expires next. */

import { byId, createElement, setText, setVisible } from "./dom.js";
import { pluralize } from "./labels.js";
import { formatAbsolute, formatDuration, isShortLived } from "./time.js";

let tokens = [];
let shownNext = null;

export function showSummary(overview, now) {
  tokens = overview.tokens;
  setText(byId("summary-text"), describe(overview));
  tickSummary(now);
}

/** Show the token that expires next. */
export function tickSummary(now) {
  const [next] = tokens
    .filter((token) => token.expires_at > now)
    .sort((a, b) => a.expires_at - b.expires_at);
  setVisible(byId("next-expiry"), next);
  if (!next) return;
  const variable = `#${encodeURIComponent(next.variable)}`;
  const content = JSON.stringify([next.name, variable]);
  if (shownNext !== content) {
    shownNext = content;
    const name = createElement("bdi", next.name);
    const link = createElement("a", "", { href: variable });
    link.append(name);
    byId("next-name").replaceChildren(link);
  }
  setText(byId("next-time"), `in ${formatDuration(next.expires_at - now, isShortLived(next))}`);
  byId("next-time").title = formatAbsolute(next.expires_at, true);
}

function describe({ dags, tokens }) {
  const failing = dags.filter((dag) => dag.severity !== "ok").length;
  const troubled = tokens.filter((token) => token.severity !== "ok").length;
  const sentences = [];
  if (!tokens.length) sentences.push("No tokens yet.");
  else if (troubled) {
    const verb = troubled === 1 ? "needs" : "need";
    const total = pluralize(tokens.length, "token", "tokens");
    sentences.push(`${troubled} of ${total} ${verb} attention.`);
  } else if (tokens.length === 1) sentences.push("1 token, which is OK.");
  else sentences.push(`${tokens.length} tokens, all OK.`);
  if (failing) {
    const subject = pluralize(failing, "rotation DAG needs", "rotation DAGs need");
    sentences.push(`${dags.length === 1 ? "The rotation DAG needs" : subject} attention.`);
  }
  return sentences.join(" ");
}
