/** What the page takes from Airflow's own page when it is shown inside of it. */

const framed = window.parent !== window;

function parentDocument() {
  try {
    return framed ? window.parent.document : null;
  } catch {
    return null; // of another origin
  }
}

/** Airflow's theme; null where there is no Airflow around. */
function themeAround() {
  const outer = parentDocument()?.documentElement;
  if (!outer) return null;
  // Airflow 2 inverts its whole page, with this frame in it: what is light here comes out dark.
  if (outer.hasAttribute("data-color-scheme")) return "light";
  const dark = outer.classList.contains("dark") || outer.dataset.theme === "dark";
  return dark ? "dark" : "light";
}

/** Take the theme of Airflow's page, or the browser's, now and whenever it changes. */
export function followTheme() {
  const root = document.documentElement;
  const preference = window.matchMedia("(prefers-color-scheme: dark)");
  const follow = () => {
    root.dataset.theme = themeAround() ?? (preference.matches ? "dark" : "light");
  };
  root.toggleAttribute("data-framed", framed);
  follow();
  preference.addEventListener("change", follow);
  const outer = parentDocument()?.documentElement;
  if (outer) {
    const marks = ["class", "data-theme", "data-color-scheme"];
    new MutationObserver(follow).observe(outer, { attributeFilter: marks });
  }
}

/** Let links lead Airflow's page somewhere: a sandboxed frame may not do so itself. */
export function openLinksAround() {
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href]");
    const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
    const outer = parentDocument();
    if (!link || !plain || !outer || link.getAttribute("href").startsWith("#")) return;
    const twin = outer.createElement("a");
    twin.href = link.href;
    outer.body.append(twin);
    twin.click();
    twin.remove();
    event.preventDefault();
  });
}

/** The Variable that an address leads to, of this page or of Airflow's around it. */
export function placeAsked() {
  const hash = document.location.hash || parentDocument()?.location.hash || "";
  try {
    return decodeURIComponent(hash.slice(1));
  } catch {
    return "";
  }
}

/** Where signing in again leads: the page that the browser shows, without a place in it. */
export function outermostAddress() {
  const address = new URL((parentDocument() ?? document).location.href);
  address.hash = "";
  return address.href;
}
