// Coverage by series and day, on a canvas. Colours differ in lightness too, and cells with
// candles that are missing without a reason have a mark.

import { getJson } from "./api.js";
import { colours, count, element, marketName, onTheme, seriesId, seriesName } from "./format.js";

const CHUNK = 30;
const SERIES_MAX = 300;
const ROW_PX = 20;
const NARROW_PX = 560;
const AXIS_PX = 20;

const LEGEND = [
  ["full", "complete"],
  ["part", "missing, with a reason"],
  ["bad", "missing, without a reason (marked)"],
  ["none", "never recorded"],
];

export class Heatmap {
  constructor({ place, text, legend, filter, more, days }, onChoice) {
    Object.assign(this, { place, text, filter, more, onChoice });
    this.all = [];
    this.rows = [];
    this.dayNames = [];
    this.wanted = CHUNK;
    this.days = 30;
    this.cursor = null;
    this.canvas = element("canvas");
    place.append(this.canvas);
    legend.append(...LEGEND.map(([kind, what]) => element("span", "", element("i", `swatch ${kind}`), what)));
    this.#makeDays(days);
    let typing = null;
    filter.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#restart(), 250);
    });
    more.addEventListener("click", () => {
      this.wanted += CHUNK;
      this.#refresh();
    });
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("click", (event) => {
      this.#point(event);
      this.#choose();
    });
    place.addEventListener("keydown", (event) => this.#key(event));
    place.addEventListener("focus", () => this.#setCursor(this.cursor ?? [0, this.dayNames.length - 1]));
    new ResizeObserver(() => this.#draw()).observe(place);
    onTheme(() => this.#draw());
  }

  /** Set the series that the lake has. */
  offer(series) {
    const changed = series.map(seriesId).join() !== this.all.map(seriesId).join();
    this.all = series;
    if (changed) this.#refresh();
  }

  #refresh() {
    this.update().catch((error) => {
      this.text.textContent = error.message;
    });
  }

  /** Fetch the coverage of the shown series, some at a time. */
  async update() {
    const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.all.filter((series) =>
      words.every((word) => seriesId(series).toLowerCase().includes(word)),
    );
    const shown = found.slice(0, Math.min(this.wanted, SERIES_MAX));
    const rows = [];
    let dayNames = [];
    const { days } = this;
    for (let at = 0; at < shown.length; at += CHUNK) {
      const part = shown.slice(at, at + CHUNK);
      const answer = await getJson("/page/coverage.json", { series: part.map(seriesId), days });
      rows.push(...answer.rows);
      if (answer.days.length) dayNames = answer.days;
    }
    if (days !== this.days) return;
    this.rows = rows;
    this.dayNames = dayNames;
    this.more.hidden = found.length <= shown.length || shown.length >= SERIES_MAX;
    this.more.textContent = `More series (${count(found.length - shown.length)})`;
    this.place.dataset.rows = rows.length;
    this.#draw();
    if (!rows.length)
      this.text.textContent = this.all.length ? "no series matches the filter" : "no series yet";
    else if (!this.cursor) this.text.textContent = this.#summary();
  }

  #restart() {
    this.wanted = CHUNK;
    this.cursor = null;
    this.#refresh();
  }

  #makeDays(place) {
    for (const days of [14, 30, 90, 365]) {
      const button = element("button", "", days === 365 ? "1 year" : `${days} days`);
      button.type = "button";
      button.setAttribute("aria-pressed", days === this.days);
      button.addEventListener("click", () => {
        this.days = days;
        for (const each of place.children) each.setAttribute("aria-pressed", each === button);
        this.cursor = null;
        this.#refresh();
      });
      place.append(button);
    }
  }

  #summary() {
    let days = 0;
    let bad = 0;
    for (const row of this.rows) {
      for (const cell of row.cells) {
        days += cell !== null;
        bad += cell !== null && cell[3] > 0;
      }
    }
    const what = `${count(this.rows.length)} series, ${count(days)} days recorded in all`;
    return bad ? `${what}; on ${count(bad)} of these days candles are missing without a reason` : what;
  }

  /** The places of all parts for the present width. */
  #layout() {
    const width = this.place.clientWidth;
    const narrow = width < NARROW_PX;
    const left = narrow ? 0 : Math.min(250, width * 0.24);
    const labelPx = narrow ? 19 : 0;
    const rowPx = ROW_PX + labelPx;
    return {
      width,
      narrow,
      left,
      labelPx,
      rowPx,
      cellPx: (width - left) / Math.max(1, this.dayNames.length),
    };
  }

  #draw() {
    const { width, narrow, left, labelPx, rowPx, cellPx } = this.#layout();
    if (!width) return;
    const height = this.rows.length * rowPx + AXIS_PX;
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.canvas.style.height = `${height}px`;
    const c = colours(
      "ink",
      "quiet",
      "card",
      "line",
      "accent",
      "heat-full",
      "heat-part",
      "heat-bad",
      "heat-none",
    );
    const pen = this.canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const family = getComputedStyle(document.body).fontFamily;
    const gap = cellPx > 5 ? 1 : 0;
    this.rows.forEach((row, number) => {
      const top = number * rowPx + labelPx;
      const [market, symbol, interval] = row.series;
      pen.textBaseline = narrow ? "alphabetic" : "middle";
      const y = narrow ? top - 4 : top + ROW_PX / 2;
      pen.font = `13px ${family}`;
      pen.fillStyle = c.ink;
      const label = `${symbol} ${interval}`;
      pen.fillText(label, 0, y, narrow ? width : left - 12);
      const used = pen.measureText(label).width + 8;
      pen.font = `12px ${family}`;
      pen.fillStyle = c.quiet;
      const rest = (narrow ? width : left - 10) - used;
      const place = marketName(market);
      if (pen.measureText(place).width <= rest) pen.fillText(place, used, y);
      row.cells.forEach((cell, day) => {
        const kind = kindOf(cell);
        pen.fillStyle = c[`heat-${kind}`];
        const x = left + day * cellPx;
        pen.fillRect(x, top + 1, Math.max(cellPx - gap, 0.6), ROW_PX - 3);
        if (kind === "bad" && cellPx > 4) {
          pen.fillStyle = c.card;
          pen.beginPath();
          pen.arc(x + (cellPx - gap) / 2, top + ROW_PX / 2 - 0.5, Math.min(2.6, cellPx / 4), 0, 7);
          pen.fill();
        }
      });
    });
    this.#drawAxis(pen, family, c, left, cellPx, this.rows.length * rowPx + 13, width);
    if (this.cursor && this.rows[this.cursor[0]]) {
      const [number, day] = this.cursor;
      pen.strokeStyle = c.ink;
      pen.lineWidth = 2;
      pen.strokeRect(left + day * cellPx - 0.5, number * rowPx + labelPx, Math.max(cellPx, 3), ROW_PX - 1);
    }
  }

  #drawAxis(pen, family, c, left, cellPx, y, width) {
    pen.font = `11px ${family}`;
    pen.fillStyle = c.quiet;
    pen.textBaseline = "alphabetic";
    let free = left;
    this.dayNames.forEach((name, day) => {
      const x = left + day * cellPx;
      const label = name.slice(5); // without the year
      const wide = pen.measureText(label).width;
      if (x < free || x + wide > width) return;
      pen.fillText(label, x, y);
      free = x + wide + 26;
    });
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const { left, rowPx, cellPx } = this.#layout();
    const row = Math.floor((event.clientY - box.top) / rowPx);
    const day = Math.floor((event.clientX - box.left - left) / cellPx);
    if (this.rows[row] && day >= 0 && day < this.dayNames.length) this.#setCursor([row, day]);
  }

  #setCursor([row, day]) {
    if (!this.rows.length) return;
    this.cursor = [
      Math.max(0, Math.min(this.rows.length - 1, row)),
      Math.max(0, Math.min(this.dayNames.length - 1, day)),
    ];
    this.#draw();
    this.text.textContent = this.#describe();
  }

  #describe() {
    const [number, day] = this.cursor;
    const row = this.rows[number];
    const cell = row.cells[day];
    const name = `${seriesName(row.series)} · ${this.dayNames[day]} · `;
    if (cell === null) return name + (row.never_came ? `never a candle: ${row.never_came}` : "not recorded");
    const [expected, present, missing, withoutReason] = cell;
    if (!missing) return `${name}complete, ${count(present)} candles`;
    const reason = withoutReason ? `${count(withoutReason)} of them without a reason` : "all with a reason";
    return `${name}${count(present)} of ${count(expected)} candles, ${count(missing)} missing, ${reason}`;
  }

  #choose() {
    if (this.cursor) this.onChoice(this.rows[this.cursor[0]].series);
  }

  #key(event) {
    if (!this.rows.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const [row, day] = this.cursor ?? [0, this.dayNames.length - 1];
    const moves = {
      ArrowLeft: [row, day - 1],
      ArrowRight: [row, day + 1],
      ArrowUp: [row - 1, day],
      ArrowDown: [row + 1, day],
      Home: [row, 0],
      End: [row, this.dayNames.length - 1],
      PageUp: [row - 10, day],
      PageDown: [row + 10, day],
    };
    if (event.key === "Enter") this.#choose();
    else if (moves[event.key]) this.#setCursor(moves[event.key]);
    else return;
    event.preventDefault();
  }
}

function kindOf(cell) {
  if (cell === null) return "none";
  const [, , missing, withoutReason] = cell;
  return withoutReason ? "bad" : missing ? "part" : "full";
}
