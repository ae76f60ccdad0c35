import {
  createElement,
  setAttribute,
  setLink,
  setList,
  setOptionalText,
  setText,
  setVisible,
} from "./dom.js";
import { computeBounds, describeBounds, listLifetimes, validateMinutes } from "./lifetimes.js";
import { formatDuration } from "./time.js";

/** The choice of a lifetime, and the buttons that renew one token or rehearse that. */
export class RenewalForm {
  constructor(row, parts) {
    Object.assign(this, { row, parts });
    this.#labelControls(row.number);
    parts.form.addEventListener("submit", (event) => this.#onSubmit(event));
    parts.rehearse.addEventListener("click", () => this.#onRehearse());
    parts.lifetime.addEventListener("change", () => this.#onLifetimeChange());
    parts.minutes.addEventListener("input", () => this.#onMinutesInput());
  }

  update(now) {
    const { parts, row } = this;
    const { possible, way_out: wayOut, why_not: whyNot } = row.token.renewal;
    const { isBusy } = row;
    this.bounds = computeBounds(row.token, now);
    this.#updateLifetimes();
    for (const button of [parts.renew, parts.rehearse]) {
      setAttribute(button, "aria-disabled", isBusy || !possible ? "true" : null);
    }
    if (!possible && !isBusy && parts.picker.contains(document.activeElement)) parts.renew.focus();
    setVisible(parts.picker, possible || isBusy);
    setVisible(parts.impossible, !possible && !isBusy);
    setText(parts.whyNot, whyNot);
    setText(parts.wayOut, wayOut?.text ?? "");
    setLink(parts.wayOut, wayOut?.url);
  }

  /** Add the token's name to the accessible name of each control: "Renew AIRFLOW". */
  #labelControls(number) {
    const { parts } = this;
    const name = `name-${number}`;
    const reference = (element, attribute, ...targets) => {
      const ids = targets.map((target) => {
        if (target === name) return name;
        parts[target].id = `${target}-${number}`;
        return parts[target].id;
      });
      setAttribute(element, attribute, ids.join(" "));
    };
    reference(parts.renew, "aria-labelledby", "renew", name);
    reference(parts.renew, "aria-describedby", "whyNot");
    reference(parts.rehearse, "aria-labelledby", "rehearse", name);
    reference(parts.rehearse, "aria-describedby", "whyNot");
    reference(parts.lifetime, "aria-labelledby", "lifetimeLabel", name);
    reference(parts.minutes, "aria-labelledby", "minutesLabel", name);
    reference(parts.minutes, "aria-describedby", "minutesError", "minutesHint");
  }

  #updateLifetimes() {
    const { parts, row } = this;
    const { longest_minutes: longest, usual_minutes: usual } = row.token.renewal;
    const maximum = longest ? `maximum (${formatDuration(longest * 60)})` : "maximum";
    const first = usual === null ? maximum : `as configured (${formatDuration(usual * 60)})`;
    const options = [
      ["usual", first],
      ...listLifetimes(row.token, this.bounds).map((value) => [
        String(value),
        formatDuration(value * 60),
      ]),
      ["other", "other…"],
    ];
    const chosen = parts.lifetime.value;
    setList(parts.lifetime, options, ([value, text]) => createElement("option", text, { value }));
    parts.lifetime.value = chosen;
    if (parts.lifetime.selectedIndex < 0) parts.lifetime.value = "usual";
    this.#onLifetimeChange();
  }

  #onLifetimeChange() {
    setVisible(this.parts.other, this.parts.lifetime.value === "other");
    this.#onMinutesInput();
  }

  #onMinutesInput() {
    const { minutes, minutesHint } = this.parts;
    const error = validateMinutes(minutes.value, this.bounds);
    const duration = error ? "" : formatDuration(Number(minutes.value) * 60);
    setText(minutesHint, duration || describeBounds(this.bounds));
    if (error && !minutes.hasAttribute("aria-invalid")) return;
    this.#showMinutesError(minutes.value && error);
  }

  #showMinutesError(error) {
    const { minutes, minutesError, minutesHint } = this.parts;
    setAttribute(minutes, "aria-invalid", error ? "true" : null);
    setOptionalText(minutesError, error);
    setVisible(minutesHint, !error);
  }

  #onRehearse() {
    if (!this.parts.rehearse.hasAttribute("aria-disabled")) this.row.actions.rehearse(this.row);
  }

  #onSubmit(event) {
    event.preventDefault();
    const { parts } = this;
    if (parts.renew.hasAttribute("aria-disabled")) return;
    const choice = parts.lifetime.value;
    if (choice === "other") {
      const error = validateMinutes(parts.minutes.value, this.bounds);
      this.#showMinutesError(error);
      if (error) {
        parts.minutes.focus();
        return;
      }
    }
    const special = { usual: null, other: Number(parts.minutes.value) };
    this.row.actions.renew(this.row, choice in special ? special[choice] : Number(choice));
  }
}
