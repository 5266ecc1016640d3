// Numbers, times and names as people read them. Times are UTC.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const NONE = "–";

export const count = (number) => (number === null || number === undefined ? NONE : whole.format(number));

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A large number in few digits: 1.2M. */
export const short = (number) => compact.format(number);

export function bytes(number) {
  if (number === null || number === undefined) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1000;
    unit += 1;
  }
  return `${number >= 100 || unit === 0 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
}

export function milliseconds(number) {
  if (number === null || number === undefined) return NONE;
  if (Math.abs(number) < 1000) return `${Math.round(number)} ms`;
  return span(number);
}

/** A span of time in one or two units: 3 s, 2 min, 1 h 5 min, 4 d 2 h. */
export function span(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 10 && ms % 1000) return `${(ms / 1000).toFixed(1)} s`;
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return hours % 24 && days < 10 ? `${days} d ${hours % 24} h` : `${days} d`;
}

/** 2024-06-30 12:34, with seconds if they are not 0. */
export function moment(ms) {
  const text = new Date(ms).toISOString();
  return `${text.slice(0, 10)} ${text.slice(11, ms % 60_000 ? 19 : 16)}`;
}

/** A price or volume with all its digits, grouped. */
export function price(number, decimals) {
  return number.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

export function amount(number) {
  return number.toLocaleString("en", { maximumSignificantDigits: 6 });
}

/** The number of decimals that tells prices apart: 2 for 81449.77. */
export function decimalsOf(values) {
  let found = 0;
  for (const value of values) {
    const text = value.toString();
    const exponent = text.indexOf("e-");
    const point = text.indexOf(".");
    const digits = point < 0 ? 0 : (exponent < 0 ? text.length : exponent) - point - 1;
    found = Math.max(found, digits + (exponent < 0 ? 0 : Number(text.slice(exponent + 2))));
  }
  return Math.min(found, 10);
}

export const seriesId = (series) => series.join(":");
export const marketName = (market) => market.replace("_", " ");
export const seriesName = ([market, symbol, interval]) => `${symbol} ${interval}, ${marketName(market)}`;

/** Return an element with a class and children: text or elements. Text is never read as HTML. */
export function element(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/**
 * Return a row of a table. On a phone each cell shows its label.
 * `cells` are text or elements; an empty text leaves a cell empty. `isNumber(at)` aligns a column.
 */
export function tableRow(cells, labels, isNumber) {
  const row = element("tr");
  cells.forEach((content, at) => {
    const cell = element("td", isNumber(at) ? "num" : "", ...(content ? [content] : []));
    cell.dataset.label = labels[at];
    row.append(cell);
  });
  return row;
}

/** The labels of a table's columns. */
export const labelsOf = (table) => [...table.tHead.rows[0].cells].map((cell) => cell.textContent);

/** The present values of colours of the style sheet. */
export function colours(...names) {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

/** The same colour with less opacity; `colour` is #rrggbb. */
export const faint = (colour, share) =>
  colour +
  Math.round(share * 255)
    .toString(16)
    .padStart(2, "0");

const themes = new Set();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
  themes.forEach((paint) => paint()),
);

/** Call `paint` when the system changes between dark and light. */
export const onTheme = (paint) => themes.add(paint);
