/** The integration with Airflow's page, when this page is shown in a frame of it. */

const AIRFLOW_COLORS = {
  "--ground": "bg",
  "--panel": "bg",
  "--raised": "bg-muted",
  "--line": "border",
};
const isFramed = window.parent !== window;

function getParentDocument() {
  try {
    return isFramed ? window.parent.document : null;
  } catch {
    return null; // of another origin
  }
}

/** Return the theme of Airflow's page; null without one. */
function readParentTheme() {
  const parent = getParentDocument()?.documentElement;
  if (!parent) return null;
  // Airflow 2 inverts its whole page including this frame, so the light theme appears dark.
  if (parent.hasAttribute("data-color-scheme")) return "light";
  const dark = parent.classList.contains("dark") || parent.dataset.theme === "dark";
  return dark ? "dark" : "light";
}

/** Take over the colours of Airflow's page, which depend on its theme. */
function copyParentColors(root) {
  const parent = getParentDocument()?.documentElement;
  if (!parent || parent.hasAttribute("data-color-scheme")) return;
  const style = getComputedStyle(parent);
  for (const [name, source] of Object.entries(AIRFLOW_COLORS)) {
    const color = style.getPropertyValue(`--chakra-colors-${source}`).trim();
    if (color) root.style.setProperty(name, color);
  }
}

/** Apply the theme of Airflow's page, or the browser's, now and whenever it changes. */
export function followTheme() {
  const root = document.documentElement;
  const preference = window.matchMedia("(prefers-color-scheme: dark)");
  const applyTheme = () => {
    root.dataset.theme = readParentTheme() ?? (preference.matches ? "dark" : "light");
    copyParentColors(root);
  };
  root.toggleAttribute("data-framed", isFramed);
  applyTheme();
  preference.addEventListener("change", applyTheme);
  const parent = getParentDocument()?.documentElement;
  if (parent) {
    const attributeFilter = ["class", "data-theme", "data-color-scheme"];
    new MutationObserver(applyTheme).observe(parent, { attributeFilter });
  }
}

/** Open links in Airflow's page, which a sandboxed frame may not do itself. */
export function openLinksInParent() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    const parent = getParentDocument();
    if (!link || !plain || !parent || link.getAttribute("href").startsWith("#")) return;
    const copy = parent.createElement("a");
    copy.href = link.href;
    parent.body.append(copy);
    copy.click();
    copy.remove();
    event.preventDefault();
  });
}

/** Call `show` with the Variable in the fragment of the URL, or of Airflow's, when it changes. */
export function followRequestedVariable(show) {
  window.addEventListener("hashchange", () => show(decodeHash(document.location.hash)));
  const parent = getParentDocument();
  parent?.defaultView.addEventListener("hashchange", () => show(decodeHash(parent.location.hash)));
}

/** Return the Variable in the fragment of this page's URL, or of Airflow's page. */
export function readRequestedVariable() {
  return decodeHash(document.location.hash || getParentDocument()?.location.hash || "");
}

function decodeHash(hash) {
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return hash.slice(1);
  }
}

/** Return the URL that the browser shows, without its fragment: the target of a new sign-in. */
export function getBrowserUrl() {
  const url = new URL((getParentDocument() ?? document).location.href);
  url.hash = "";
  return url.href;
}
