/** The formatting of durations and times. All times are epoch seconds. */

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const SHORT_LIFETIME = 2 * HOUR;

let timeZone; // undefined: of the browser
let formats = createFormats();

/** Use the time zone of Airflow's UI; null is that of the browser. */
export function setTimeZone(name) {
  if ((name ?? undefined) === timeZone) return;
  timeZone = name ?? undefined;
  try {
    formats = createFormats();
  } catch {
    timeZone = undefined; // the browser does not know the zone
    formats = createFormats();
  }
}

function createFormats() {
  const parts = new Intl.DateTimeFormat("en-GB", {
    weekday: "short",
    day: "numeric",
    month: "short",
    year: "numeric",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
    timeZone,
  });
  const zones = ["en-GB", "en-US", "en-AU"].map(
    (locale) => new Intl.DateTimeFormat(locale, { timeZoneName: "short", timeZone }),
  );
  return { parts, zones };
}

function getParts(epoch) {
  const parts = formats.parts.formatToParts(epoch * 1000);
  return Object.fromEntries(parts.map(({ type, value }) => [type, value]));
}

/** `CET`; only zones without an abbreviation are `GMT+3`. */
function getZoneName(epoch) {
  const names = formats.zones.map(
    (format) =>
      format.formatToParts(epoch * 1000).find((part) => part.type === "timeZoneName").value,
  );
  return names.find((name) => !/[+-]/.test(name)) ?? names[0];
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

/** `in 2 h 13 min`, `3 min ago` or `just now`. */
export function formatRelative(epoch, now, precise = false) {
  if (epoch <= now && now - epoch < (precise ? 1 : MINUTE)) return "just now";
  const duration = formatDuration(epoch - now, precise);
  return epoch >= now ? `in ${duration}` : `${duration} ago`;
}

/** As `formatRelative`, of an event that has not happened: `due` if its time has come. */
export function formatUpcoming(epoch, now, precise = false) {
  return epoch > now ? formatRelative(epoch, now, precise) : "due";
}

/** `Sun 29 Nov 2026, 16:39 CET`. */
export function formatAbsolute(epoch, precise = false) {
  const { weekday, day, month, year, hour, minute, second } = getParts(epoch);
  const time = precise ? `${hour}:${minute}:${second}` : `${hour}:${minute}`;
  return `${weekday} ${day} ${month} ${year}, ${time} ${getZoneName(epoch)}`;
}

/** `16:39:02 CET`. */
export function formatClock(epoch) {
  const { hour, minute, second } = getParts(epoch);
  return `${hour}:${minute}:${second} ${getZoneName(epoch)}`;
}

/** `Sun 16:39`, with the date if it is not within six days. */
export function formatDay(epoch, now) {
  const { weekday, day, month, hour, minute } = getParts(epoch);
  const isNear = Math.abs(epoch - now) < 6 * DAY;
  return isNear ? `${weekday} ${hour}:${minute}` : `${weekday} ${day} ${month}, ${hour}:${minute}`;
}

/** Replace the UTC times of a message by times in the zone of the page. */
export function localizeTimes(text) {
  return text.replace(
    /(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?(?: UTC|Z|\+00:00)/g,
    (whole, date, minute, second) => {
      const epoch = Date.parse(`${date}T${minute}${second ?? ":00"}Z`) / 1000;
      return Number.isNaN(epoch) ? whole : formatAbsolute(epoch, Boolean(second));
    },
  );
}
