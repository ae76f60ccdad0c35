import {
  byId,
  createElement,
  reorder,
  setOptionalText,
  setText,
  setVisible,
  Views,
} from "./dom.js";
import { followTheme, getBrowserUrl, openLinksInParent, readRequestedVariable } from "./frame.js";
import { buildSummary, makeShowable } from "./labels.js";
import { RotationDag } from "./rotation_dag.js";
import { getKey, Row } from "./row.js";
import { formatTime } from "./time.js";

const VERSION = 3; // of the API
const ACTIVE_INTERVAL = 2000; // ms between two requests during a renewal
const IDLE_INTERVAL = 30000;
const TIMEOUT = 20000; // ms for one response
const FIRST_ROWS = 24; // before the first paint: more than fit on a screen
const GROUPS = ["active", "attention", "expired"];

const dagViews = new Views((dag) => dag.dag_id, () => new RotationDag());
const rowViews = new Views(getKey, () => new Row(renew, announce));

let clockOffset = 0; // seconds by which the server's clock is ahead of the browser's
let loadedAt = null; // the server's time of the data on the page
let requestedVariable = readRequestedVariable(); // to scroll to, until its row exists
let tokens = []; // of the last response
let loadNumber = 0;
let timer;

const now = () => Date.now() / 1000 + clockOffset;

followTheme();
openLinksInParent();
document.addEventListener("visibilitychange", () => (document.hidden ? cancelReload() : load()));
setInterval(tick, 1000);
load();

async function load() {
  cancelReload();
  const number = ++loadNumber;
  const { status, body } = await callApi("api/tokens");
  if (number !== loadNumber) return; // a later request or a renewal has newer data
  if (status === 200) showOverview(body);
  showError(status, body);
  scheduleReload();
}

function cancelReload() {
  clearTimeout(timer);
}

function scheduleReload() {
  cancelReload();
  if (document.hidden) return;
  const isActive = rowViews.all.some((row) => row.isActive);
  timer = setTimeout(load, isActive ? ACTIVE_INTERVAL : IDLE_INTERVAL);
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
    return JSON.parse(text, makeShowable);
  } catch {
    return {};
  }
}

async function renew(row, minutes) {
  if (row.isRequesting) return;
  row.isRequesting = true;
  row.requestError = null;
  row.refresh(now());
  const variable = encodeURIComponent(row.token.variable);
  const { status, body } = await callApi(`api/tokens/${variable}/renew`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Requested-With": "flowauth-rotator" },
    body: JSON.stringify({ lifetime_minutes: minutes, expires_at: row.token.expires_at }),
  });
  row.isRequesting = false;
  if (status === 202) {
    loadNumber += 1; // an active request was sent before the renewal
    setClock(body.now);
    row.update(body.token, now());
    scheduleReload();
    return;
  }
  row.requestError = { text: body.message ?? describeFailure(status), at: now() };
  row.refresh(now());
  load();
}

function describeFailure(status) {
  if (status === 401) return "You are no longer signed in.";
  if (status === 0) return "Airflow did not respond. If the renewal has started, it appears here.";
  return `Airflow returned an error (HTTP ${status}).`;
}

function setClock(serverNow) {
  clockOffset = serverNow - Date.now() / 1000;
  loadedAt = serverNow;
}

function showOverview(overview) {
  setClock(overview.now);
  document.body.removeAttribute("aria-busy");
  showSummary(overview);
  showDags(overview.dags);
  showNotices(overview.dags);
  tokens = overview.tokens;
  if (rowViews.all.length === 0 && tokens.length > FIRST_ROWS) {
    showTokens(tokens.slice(0, FIRST_ROWS));
    requestAnimationFrame(() => setTimeout(() => showTokens(tokens)));
  } else {
    showTokens(tokens);
  }
  setVisible(byId("start"), tokens.length === 0);
  setVisible(byId("start-dag"), overview.dags.length === 0);
}

function showSummary(overview) {
  const parts = buildSummary(overview.tokens, overview.dags);
  const text = parts.map((part) => part.text).join("");
  if (byId("summary").textContent === text) return;
  byId("summary").replaceChildren(
    ...parts.map(({ text, group }) =>
      group ? createElement("a", text, { href: `#${group}` }) : text,
    ),
  );
}

function showDags(dags) {
  const views = dagViews.update(dags, now());
  reorder(byId("rotation-dag-list"), views.map((view) => view.root));
  setVisible(byId("rotation-dags"), views.length);
}

/** Show the invalid entries of the lists of managed tokens, unless the line of the DAG does. */
function showNotices(dags) {
  const notices = dags.flatMap((dag) =>
    dag.configuration_errors.filter((error) => !dag.hint.includes(error)),
  );
  const list = byId("notice-list");
  const current = [...list.children].map((item) => item.textContent);
  if (JSON.stringify(current) !== JSON.stringify(notices)) {
    list.replaceChildren(...notices.map((notice) => createElement("li", notice)));
  }
  setVisible(byId("notices"), notices.length);
}

function showTokens(shownTokens) {
  const views = rowViews.update(shownTokens, now());
  const groups = GROUPS.map((group) => [
    byId(group),
    views.filter((row) => row.token.group === group).map((row) => row.root),
  ]);
  for (const [section, members] of groups) if (members.length) setVisible(section, true);
  for (const [section, members] of groups) {
    reorder(section.querySelector("ul"), members);
    const count = tokens.filter((token) => token.group === section.id).length;
    setText(section.querySelector(".count"), String(count));
  }
  for (const [section, members] of groups) setVisible(section, members.length);
  scrollToRequestedRow(views);
}

function scrollToRequestedRow(views) {
  const row = views.find((view) => view.token.variable === requestedVariable);
  if (!requestedVariable || !row) return;
  requestedVariable = "";
  row.root.scrollIntoView({ block: "center" });
  row.highlight();
}

function showError(status, body) {
  const since = loadedAt && formatTime(loadedAt, now(), true);
  const messages = {
    200: null,
    401: "You are no longer signed in.",
    403: body.message ?? "You do not have the permission to see these tokens.",
  };
  const noResponse = since
    ? `Airflow does not respond. The page shows the state at ${since} and retries.`
    : "Airflow does not respond. The page retries.";
  setOptionalText(byId("error-banner-text"), status in messages ? messages[status] : noResponse);
  setVisible(byId("error-banner"), status !== 200);
  setVisible(byId("sign-in"), status === 401);
  byId("sign-in").href = getBrowserUrl();
  for (const id of ["summary", "board"]) setVisible(byId(id), status !== 403);
  setVisible(byId("loading"), false);
  setOptionalText(byId("as-of"), status === 200 ? `As of ${since}` : null);
}

/** Announce a message to screen readers. */
function announce(token, message) {
  setText(byId("announcement"), `${token.name} ${message}`);
}

function tick() {
  if (document.hidden) return;
  const time = now();
  for (const view of [...dagViews.all, ...rowViews.all]) view.tick(time);
}
