/** What a tab keeps until it is closed: the view, and the runs that it started. */

const PREFIX = "flowauth-rotator.";

export function load(key, fallback) {
  try {
    return JSON.parse(sessionStorage.getItem(PREFIX + key)) ?? fallback;
  } catch {
    return fallback; // the browser blocks the storage, or another page changed it
  }
}

export function save(key, value) {
  try {
    sessionStorage.setItem(PREFIX + key, JSON.stringify(value));
  } catch {
    // The browser blocks the storage: the page works without it.
  }
}
