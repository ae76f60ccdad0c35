/** Filter and order of the rows; a tab keeps them. */

import { byId, createElement, setAttribute, setList, setVisible } from "./dom.js";
import { formatOutcome, formatState } from "./labels.js";
import { load, save } from "./storage.js";

const RANKS = ["critical", "warning", "unknown", "ok"];
const DEFAULTS = { text: "", severity: "all", dag: "", sort: "severity" };
const SEVERITIES = {
  all: "All",
  attention: "Needs attention",
  critical: "Critical",
  warning: "Warning",
  unknown: "Unknown",
  ok: "OK",
};

const view = { ...DEFAULTS, ...load("view", {}) };
let onChange = () => {};

export function startFilter(changed) {
  onChange = changed;
  byId("filter-text").value = view.text;
  byId("sort").value = view.sort;
  if (byId("sort").selectedIndex < 0) change({ sort: DEFAULTS.sort });
  byId("filter-text").addEventListener("input", (event) => change({ text: event.target.value }));
  byId("filter-dag").addEventListener("change", (event) => change({ dag: event.target.value }));
  byId("sort").addEventListener("change", (event) => change({ sort: event.target.value }));
  byId("clear-filter").addEventListener("click", () => {
    clearFilter();
    byId("filter-text").focus();
  });
  byId("severities").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) change({ severity: button.dataset.filter });
  });
}

export function clearFilter() {
  change({ ...DEFAULTS, sort: view.sort });
}

function change(values) {
  Object.assign(view, values);
  save("view", view);
  byId("filter-text").value = view.text;
  byId("sort").value = view.sort;
  byId("filter-dag").value = view.dag;
  onChange();
}

/** Update the choices: severities with their counts, and DAGs. */
export function updateChoices(tokens) {
  const choices = Object.keys(SEVERITIES)
    .map((key) => [key, tokens.filter((token) => matchesSeverity(token, key)).length])
    .filter(([key, count]) => count > 0 || key === "all" || key === view.severity);
  setList(byId("severities"), choices, ([key, count]) => {
    const button = createElement("button", `${SEVERITIES[key]} `, { "data-filter": key, type: "button" });
    if (key in { critical: 1, warning: 1, unknown: 1, ok: 1 }) button.dataset.severity = key;
    button.append(createElement("span", String(count), { class: "count" }));
    return button;
  });
  for (const button of byId("severities").children) {
    setAttribute(button, "aria-pressed", String(button.dataset.filter === view.severity));
  }
  const dags = [...new Set(tokens.flatMap((token) => token.dag_ids))].sort();
  setList(byId("filter-dag"), ["", ...dags], (dag) =>
    createElement("option", dag || "All DAGs", { value: dag }),
  );
  if (tokens.length && !dags.includes(view.dag)) view.dag = "";
  byId("filter-dag").value = view.dag;
  setVisible(byId("filter-dag").closest("label"), dags.length > 1);
  setVisible(byId("toolbar"), tokens.length > 1);
}

/** Return the tokens in the chosen order. By severity is the order of the API. */
export function sortTokens(tokens) {
  const byName = (a, b) => a.name.localeCompare(b.name) || a.variable.localeCompare(b.variable);
  const byExpiry = (a, b) => (a.expires_at ?? 0) - (b.expires_at ?? 0) || byName(a, b);
  const rank = (token) => RANKS.indexOf(token.severity);
  const orders = {
    severity: (a, b) => rank(a) - rank(b) || byExpiry(a, b),
    expiry: byExpiry,
    name: byName,
  };
  return [...tokens].sort(orders[view.sort] ?? orders.severity);
}

export function matches(token) {
  if (view.dag && !token.dag_ids.includes(view.dag)) return false;
  if (!matchesSeverity(token, view.severity)) return false;
  const state = `${formatState(token)} ${formatOutcome(token.state)}`;
  const texts = [token.name, token.variable, ...token.dag_ids, state, token.owner, token.audience];
  const content = [...texts, ...token.roles].join("\n").toLowerCase();
  return view.text.toLowerCase().split(/\s+/).every((word) => content.includes(word));
}

function matchesSeverity(token, severity) {
  if (severity === "all") return true;
  if (severity === "attention") return token.severity !== "ok";
  return token.severity === severity;
}
