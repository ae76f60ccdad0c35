import { Agent } from "./agent.js";
import { arrange, byId, create, say, show, tell, Views } from "./dom.js";
import { followTheme, openLinksAround, outermostAddress, placeAsked } from "./frame.js";
import { keyOf, Row } from "./row.js";
import { localTime } from "./time.js";
import { summary } from "./words.js";

const QUICK = 2000; // ms between two looks while a renewal is under way
const SLOW = 30000;
const PATIENCE = 20000; // ms for one answer
const AT_FIRST = 24; // rows before the first paint: more than a screen has
const GROUPS = ["active", "attention", "expired"];

const agents = new Views((agent) => agent.dag_id, () => new Agent());
const rows = new Views(keyOf, () => new Row(renew, announce));

let ahead = 0; // seconds by which the server's clock is ahead of the browser's
let shownAt = null; // the server's time of what is shown
let asked = placeAsked(); // the Variable to show first, until it has been
let latest = []; // the tokens of the last answer
let looks = 0;
let timer;

const now = () => Date.now() / 1000 + ahead;

followTheme();
openLinksAround();
document.addEventListener("visibilitychange", () => (document.hidden ? pause() : look()));
setInterval(tick, 1000);
look();

async function look() {
  pause();
  const mine = ++looks;
  const { status, body } = await ask("api/tokens");
  if (mine !== looks) return; // a later look, or a renewal, knows more
  if (status === 200) showAnswer(body);
  showTrouble(status, body);
  plan();
}

function pause() {
  clearTimeout(timer);
}

function plan() {
  pause();
  if (document.hidden) return;
  timer = setTimeout(look, rows.all.some((row) => row.active) ? QUICK : SLOW);
}

/** Ask the API. Status 0 is no usable answer; a way to sign in elsewhere is a 401. */
async function ask(address, options = {}) {
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    const answer = await fetch(address, { ...options, signal, redirect: "manual" });
    if (answer.type === "opaqueredirect") return { status: 401, body: {} };
    const body = await answer.json().catch(() => ({}));
    const readable = !answer.ok || body.version === 1;
    return readable ? { status: answer.status, body } : { status: 0, body: {} };
  } catch {
    return { status: 0, body: {} };
  }
}

async function renew(row, minutes) {
  if (row.asking) return;
  row.asking = true;
  row.problem = null;
  row.refresh(now());
  const { status, body } = await ask(`api/tokens/${encodeURIComponent(row.token.variable)}/renew`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Requested-With": "flowauth-rotator" },
    body: JSON.stringify({ lifetime_minutes: minutes, expires_at: row.token.expires_at }),
  });
  row.asking = false;
  if (status === 202) {
    looks += 1; // a look that is still under way was asked for before
    setClock(body.now);
    row.update(body.token, now());
    plan();
    return;
  }
  row.problem = { text: body.message ?? withoutMessage(status), at: now() };
  row.refresh(now());
  look();
}

function withoutMessage(status) {
  if (status === 401) return "You are not signed in any more.";
  if (status === 0) return "Airflow did not answer. A renewal that has begun all the same shows here.";
  return `Airflow answered with an error (${status}).`;
}

function setClock(serverNow) {
  ahead = serverNow - Date.now() / 1000;
  shownAt = serverNow;
}

function showAnswer(answer) {
  setClock(answer.now);
  document.body.removeAttribute("aria-busy");
  showSummary(answer);
  showAgents(answer.agents);
  showNotices(answer.notices);
  latest = answer.tokens;
  if (rows.all.length === 0 && latest.length > AT_FIRST) {
    showTokens(latest.slice(0, AT_FIRST));
    requestAnimationFrame(() => setTimeout(() => showTokens(latest)));
  } else {
    showTokens(latest);
  }
  show(byId("start"), answer.tokens.length === 0);
  show(byId("start-dag"), answer.agents.length === 0);
}

function showSummary({ tokens, agents: heartbeats }) {
  const parts = summary(tokens, heartbeats);
  const sentence = parts.map((part) => part.text).join("");
  if (byId("summary").textContent === sentence) return;
  byId("summary").replaceChildren(
    ...parts.map(({ text, group }) => (group ? create("a", text, { href: `#${group}` }) : text)),
  );
}

function showAgents(heartbeats) {
  const views = agents.update(heartbeats, now());
  arrange(byId("agent-list"), views.map((view) => view.root));
  show(byId("agents"), views.length);
}

function showNotices(notices) {
  const list = byId("notice-list");
  const shown = [...list.children].map((item) => item.textContent);
  if (JSON.stringify(shown) !== JSON.stringify(notices)) {
    list.replaceChildren(...notices.map((notice) => create("li", notice)));
  }
  show(byId("notices"), notices.length);
}

function showTokens(tokens) {
  const views = rows.update(tokens, now());
  const groups = GROUPS.map((group) => [
    byId(group),
    views.filter((row) => row.token.group === group).map((row) => row.root),
  ]);
  for (const [section, members] of groups) if (members.length) show(section, true);
  for (const [section, members] of groups) {
    arrange(section.querySelector("ul"), members);
    const all = latest.filter((token) => token.group === section.id).length;
    say(section.querySelector(".count"), String(all));
  }
  for (const [section, members] of groups) show(section, members.length);
  showAsked(views);
}

function showAsked(views) {
  const found = asked && views.find((row) => row.token.variable === asked);
  if (!found) return;
  asked = "";
  found.root.scrollIntoView({ block: "center" });
  found.highlight();
}

function showTrouble(status, body) {
  const since = shownAt && localTime(shownAt, now(), true);
  const texts = {
    200: null,
    401: "You are not signed in any more.",
    403: body.message ?? "You may not read these tokens.",
  };
  const silence = since
    ? `Airflow does not answer; what is shown is from ${since}. Trying again.`
    : "Airflow does not answer. Trying again.";
  tell(byId("trouble-text"), status in texts ? texts[status] : silence);
  show(byId("trouble"), status !== 200);
  show(byId("sign-in"), status === 401);
  byId("sign-in").href = outermostAddress();
  for (const part of ["summary", "board"]) show(byId(part), status !== 403);
  show(byId("loading"), false);
  tell(byId("as-of"), status === 200 ? `As of ${since}` : null);
}

function announce(token, sentence) {
  say(byId("announcement"), `${token.name} ${sentence}`);
}

function tick() {
  if (document.hidden) return;
  const time = now();
  for (const view of [...agents.all, ...rows.all]) view.tick(time);
}
