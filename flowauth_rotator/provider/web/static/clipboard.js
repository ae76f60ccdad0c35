const SHOWN_TIME = 2000; // ms

/** Copy a text, and say so on the button. */
export async function copyText(text, button) {
  const copied = await write(text);
  const label = button.querySelector("[data-label]");
  const before = (button.dataset.before ??= label.textContent);
  label.textContent = copied ? "Copied" : "Not copied";
  setTimeout(() => (label.textContent = before), SHOWN_TIME);
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return writeBySelection(text); // without HTTPS there is no `navigator.clipboard`
  }
}

function writeBySelection(text) {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return copied;
}
