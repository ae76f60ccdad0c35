/** Durations and moments in words. All times are epoch seconds. */

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const SHORT_LIFETIME = 2 * HOUR;

const date = { weekday: "short", day: "numeric", month: "short", year: "numeric" };
const minutes = { hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
const withMinutes = formatsOf(minutes);
const withSeconds = formatsOf({ ...minutes, second: "2-digit" });

function formatsOf(time) {
  const inBrowsersWay = (options) => new Intl.DateTimeFormat(undefined, options);
  return { time: inBrowsersWay(time), moment: inBrowsersWay({ ...date, ...time }) };
}

function format(epoch, way) {
  return way.format(epoch * 1000);
}

function dayOf(epoch) {
  return new Date(epoch * 1000).toDateString();
}

/** Whether seconds matter to a token that lives that long. */
export function isShort({ issued_at: issued, expires_at: expires }) {
  return issued !== null && expires !== null && expires - issued < SHORT_LIFETIME;
}

/** `2 h 13 min`: the two largest units; `precise` counts the seconds of the last hour. */
export function inWords(duration, precise = false) {
  const whole = Math.floor(Math.abs(duration));
  const parts = [
    [Math.floor(whole / DAY), "d"],
    [Math.floor((whole % DAY) / HOUR), "h"],
    [Math.floor((whole % HOUR) / MINUTE), "min"],
  ];
  if (precise) parts.push([whole % MINUTE, "s"]);
  const first = parts.findIndex(([amount]) => amount > 0);
  if (first < 0) return precise ? "0 s" : "less than a minute";
  return parts
    .slice(first, first + 2)
    .filter(([amount]) => amount > 0)
    .map(([amount, unit]) => `${amount}\u00a0${unit}`)
    .join(" ");
}

/** With its date: `Thu, 26 Nov 2026, 02:40 CET`. */
export function localMoment(epoch, precise = false) {
  return format(epoch, (precise ? withSeconds : withMinutes).moment);
}

/** `02:40 CET`, with the date in front where it is not that of `now`. */
export function localTime(epoch, now, precise = false) {
  const { time, moment } = precise ? withSeconds : withMinutes;
  return format(epoch, dayOf(epoch) === dayOf(now) ? time : moment);
}

/** `2026-11-25 01:40 UTC`. */
export function utcMoment(epoch, precise = false) {
  const text = new Date(epoch * 1000).toISOString();
  const end = text.indexOf(".");
  return `${text.slice(0, precise ? end : end - 3).replace("T", " ")} UTC`;
}

/** `in 2 h 13 min`, or `3 min ago`. */
export function fromNow(epoch, now, precise = false) {
  const words = inWords(epoch - now, precise);
  return epoch >= now ? `in ${words}` : `${words} ago`;
}
