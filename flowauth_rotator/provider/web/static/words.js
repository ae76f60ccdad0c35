/** What the page says in its own words. */

const STATES = {
  ok: "Well",
  budget_exhausted: "Budget exhausted",
};

/** A state or an outcome as a label: `Budget exhausted`. */
export function label(state) {
  return STATES[state] ?? state.charAt(0).toUpperCase() + state.slice(1).replaceAll("_", " ");
}

/** How loud an agent's state is, in the words that tokens have for it. */
export function severityOf(agent) {
  const severities = { ok: "ok", new: "ok", paused: "warning", late: "warning" };
  return severities[agent.state] ?? "critical";
}

const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;

/** One sentence or two about all of it, in parts; a part with a `group` is about that group. */
export function summary(tokens, agents) {
  const troubled = agents.filter((agent) => severityOf(agent) !== "ok").length;
  const count = (group) => tokens.filter((token) => token.group === group).length;
  const troubles = [
    { group: "attention", text: counted(count("attention"), "needs care", "need care") },
    { group: "expired", text: counted(count("expired"), "has expired", "have expired") },
  ].filter(({ group }) => count(group) > 0);

  const all = tokens.length ? counted(tokens.length, "token", "tokens") : "No tokens yet";
  const parts = [{ text: all }];
  if (troubles.length) parts.push({ text: ": " }, ...between(troubles, { text: ", " }));
  else if (tokens.length) parts.push({ text: troubled ? ", all well so far" : ", all well" });
  parts.push({ text: "." });
  if (troubled) {
    const several = counted(troubled, "rotation DAG needs", "rotation DAGs need");
    parts.push({ text: ` ${agents.length === 1 ? "The rotation DAG needs" : several} care.` });
  }
  return parts;
}

function between(items, separator) {
  return items.flatMap((item, index) => (index ? [separator, item] : [item]));
}

/** `runner, viewer, user and 3 more`. */
export function listed(names, most = 3) {
  const rest = names.length - most;
  return rest > 1 ? `${names.slice(0, most).join(", ")} and ${rest} more` : names.join(", ");
}

/** The lifetimes that one may pick, in minutes, from the least to below the longest. */
export function lifetimes(least, longest) {
  const usual = [60, 360, 720, 1440, 10080, 43200];
  return usual.filter((minutes) => minutes >= least && (longest === null || minutes < longest));
}

/** What is wrong with typed minutes; nothing if they will do. */
export function objection(text, least, longest) {
  const whole = /^0*[1-9]\d{0,8}$/.test(text.trim());
  const minutes = Number(text);
  if (whole && minutes >= least && (longest === null || minutes <= longest)) return "";
  const reason = least > 1 ? ", longer than the token in use lives" : "";
  const range = longest === null ? `${least} or more` : `from ${least} to ${longest}`;
  return `Give whole minutes, ${range}${reason}.`;
}
