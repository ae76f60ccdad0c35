import { describeFailure, fetchOverview, requestRehearsal, requestRenewal } from "./api.js";
import { Batch } from "./batch.js";
import { byId, createElement, reorder, setOptionalText, setText, setVisible, Views } from "./dom.js";
import { clearFilter, matches, sortTokens, startFilter, updateChoices } from "./filter.js";
import {
  followRequestedVariable,
  followTheme,
  getBrowserUrl,
  openLinksInParent,
  readRequestedVariable,
} from "./frame.js";
import { showSummary, tickSummary } from "./header.js";
import { noteOwnRun } from "./request.js";
import { showDags, tickDags } from "./rotation_dag.js";
import { getKey, Row } from "./row.js";
import { moveWithArrows, setEntry } from "./row_keys.js";
import { formatClock, setTimeZone } from "./time.js";

const ACTIVE_INTERVAL = 2000; // ms between two requests during a renewal
const IDLE_INTERVAL = 30000;
const FIRST_ROWS = 24; // before the first paint: more than fit on a screen
const MOST_PROMINENT = 24; // rows that need attention and are shown with their problem

const actions = { renew, rehearse, announce, ended, select: () => batch.update() };
const rowViews = new Views(getKey, () => new Row(actions));
const batch = new Batch({ rows: () => rowViews.all, renew });

let clockOffset = 0; // seconds by which the server's clock is ahead of the browser's
let loadedAt = null; // the server's time of the data on the page
let requestedVariable = readRequestedVariable(); // to scroll to, until its row exists
let tokens = []; // of the last response
let hasLoaded = false;
let loadNumber = 0;
let timer;

const now = () => Date.now() / 1000 + clockOffset;

followTheme();
openLinksInParent();
startFilter(() => showTokens(tokens));
moveWithArrows(byId("rows"));
followRequestedVariable((variable) => {
  requestedVariable = variable;
  showRequestedRow();
});
document.addEventListener("visibilitychange", () => (document.hidden ? cancelReload() : load()));
byId("refresh").addEventListener("click", () => load());
byId("dismiss").addEventListener("click", () => setVisible(byId("note"), false));
byId("api").href = new URL("api/tokens", document.baseURI).href;
setInterval(tick, 1000);
load();

async function load() {
  cancelReload();
  const number = ++loadNumber;
  byId("refresh").classList.add("busy");
  const { status, body } = await fetchOverview();
  if (number !== loadNumber) return; // a later request or a renewal has newer data
  byId("refresh").classList.remove("busy");
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

function renew(row, minutes) {
  return startRun(row, (token) => requestRenewal(token, minutes));
}

function rehearse(row) {
  return startRun(row, requestRehearsal, true);
}

async function startRun(row, request, isRehearsal = false) {
  if (row.isBusy) return;
  Object.assign(row, { isRequesting: true, isRehearsal, requestError: null });
  row.expiryBefore = row.token.expires_at;
  row.refresh(now());
  const response = await request(row.token);
  row.isRequesting = false;
  if (response.status === 202) {
    loadNumber += 1; // an active request was sent before the run started
    byId("refresh").classList.remove("busy");
    setClock(response.body.now);
    noteOwnRun(response.body.token.run, row.expiryBefore);
    row.update(response.body.token, now());
    batch.update();
    scheduleReload();
    return;
  }
  row.requestError = { text: describeFailure(response), at: now() };
  if (!row.isOpen) row.expand();
  row.refresh(now());
  batch.update();
  load();
}

function setClock(serverNow) {
  clockOffset = serverNow - Date.now() / 1000;
  loadedAt = serverNow;
}

function showOverview(overview) {
  setClock(overview.now);
  setTimeZone(overview.time_zone);
  document.body.removeAttribute("aria-busy");
  tokens = overview.tokens;
  showSummary(overview, now());
  showDags(overview.dags, now());
  setVisible(byId("rows"), tokens.length);
  if (rowViews.all.length === 0 && tokens.length > FIRST_ROWS) {
    showTokens(tokens, FIRST_ROWS);
    requestAnimationFrame(() => setTimeout(() => showTokens(tokens)));
  } else {
    showTokens(tokens);
  }
  setVisible(byId("start"), tokens.length === 0);
  setVisible(byId("start-dag"), overview.dags.length === 0);
}

/** Show the rows in the chosen order, and hide those that the filter leaves out. */
function showTokens(all, limit = all.length) {
  const sorted = sortTokens(all).slice(0, limit);
  const views = rowViews.update(sorted, now());
  reorder(byId("rows"), views.map((row) => row.root));
  let prominent = 0;
  let shown = 0;
  for (const row of views) {
    const isShown = matches(row.token);
    setVisible(row.root, isShown);
    shown += isShown;
    row.setProminent(isShown && row.token.severity !== "ok" && prominent++ < MOST_PROMINENT);
  }
  hasLoaded = limit === all.length;
  updateChoices(all);
  setVisible(byId("no-match"), shown === 0 && all.length > 0);
  setEntry(byId("rows"));
  batch.update();
  if (requestedVariable) showRequestedRow();
}

/** Scroll to the row of the Variable in the address, or say that there is none. */
function showRequestedRow() {
  const row = rowViews.all.find((each) => each.token.variable === requestedVariable);
  if (!requestedVariable || (!row && !hasLoaded)) return;
  const variable = requestedVariable;
  requestedVariable = "";
  if (!row) {
    const reason = "It is not managed by a rotation DAG, or you may not read it.";
    showNote(`There is no token in the Variable “${variable}” on this page. ${reason}`);
    return;
  }
  setVisible(byId("note"), false);
  if (row.root.hidden) clearFilter();
  row.expand();
  row.root.scrollIntoView(); // an open row may be taller than the window
  row.parts.toggle.focus({ preventScroll: true });
  row.highlight();
}

function showNote(text, variable = null) {
  setText(byId("note-text"), text);
  if (variable !== null) {
    const link = createElement("a", "Show", { href: `#${encodeURIComponent(variable)}` });
    byId("note-text").append(" ", link);
  }
  setVisible(byId("note"), true);
}

function showError(status, body) {
  const since = loadedAt && formatClock(loadedAt);
  const messages = {
    200: null,
    401: "You have been signed out.",
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

/** Say how a run that this page followed has ended; its row keeps the message. */
function ended(row, result) {
  const { token } = row;
  const isOk = result?.ok ?? token.run.state === "success"; // a run may have no report
  const verbs = token.run.is_rehearsal
    ? ["was rehearsed.", "was rehearsed, and its renewal would fail."]
    : ["was renewed.", "was not renewed."];
  announce(token, `${verbs[isOk ? 0 : 1]} ${result?.text ?? ""}`);
  if (!row.isOpen && batch.step !== "run") row.expand();
  if (result?.ok && batch.step !== "run") showNote(`${token.name}: ${result.text}`, token.variable);
}

function tick() {
  if (document.hidden) return;
  const time = now();
  tickSummary(time);
  tickDags(time);
  for (const row of rowViews.all) if (!row.root.hidden) row.tick(time);
}
