/** The formatting of durations and times. All times are epoch seconds. */

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const SHORT_LIFETIME = 2 * HOUR;

const date = { weekday: "short", day: "numeric", month: "short", year: "numeric" };
const minutes = { hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
const withMinutes = createFormats(minutes);
const withSeconds = createFormats({ ...minutes, second: "2-digit" });

function createFormats(time) {
  const createFormat = (options) => new Intl.DateTimeFormat(undefined, options); // of the browser
  return { time: createFormat(time), dateTime: createFormat({ ...date, ...time }) };
}

function getDay(epoch) {
  return new Date(epoch * 1000).toDateString();
}

/** Whether the lifetime of a token is so short that the page shows seconds. */
export function isShortLived({ issued_at: issued, expires_at: expires }) {
  return issued !== null && expires !== null && expires - issued < SHORT_LIFETIME;
}

/** `2 h 13 min`: the two largest units; `precise` adds seconds below an hour. */
export function formatDuration(duration, precise = false) {
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

/** `Thu, 26 Nov 2026, 02:40 CET`. */
export function formatDateTime(epoch, precise = false) {
  return (precise ? withSeconds : withMinutes).dateTime.format(epoch * 1000);
}

/** `02:40 CET`, with the date unless it is the date of `now`. */
export function formatTime(epoch, now, precise = false) {
  const { time, dateTime } = precise ? withSeconds : withMinutes;
  return (getDay(epoch) === getDay(now) ? time : dateTime).format(epoch * 1000);
}

/** `2026-11-25 01:40 UTC`. */
export function formatUtc(epoch, precise = false) {
  const text = new Date(epoch * 1000).toISOString();
  const end = text.indexOf(".");
  return `${text.slice(0, precise ? end : end - 3).replace("T", " ")} UTC`;
}

/** `in 2 h 13 min`, or `3 min ago`. */
export function formatRelative(epoch, now, precise = false) {
  const duration = formatDuration(epoch - now, precise);
  return epoch >= now ? `in ${duration}` : `${duration} ago`;
}
