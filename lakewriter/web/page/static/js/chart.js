// The candles of one series, which follow the lake. Missing candles keep their places.

import { getJson } from "./api.js";
import {
  amount,
  colours,
  count,
  decimalsOf,
  element,
  faint,
  moment,
  onTheme,
  price,
  seriesName,
} from "./format.js";

const PLACES = 600;
const ROWS_MAX = 20_000;
// Older candles are fetched when fewer places than this are left of the screen.
const OLDER_AT = 60;
// Every so many updates ask again from the first missing candle: it may have been healed.
const HEALED_EVERY = 8;
const HEALED_ROWS = 500;

const library = () => window.LightweightCharts;

/** The look that all charts of the page share. */
export function chartOptions() {
  const c = colours("card", "quiet", "line");
  return {
    autoSize: true,
    layout: {
      background: { color: c.card },
      textColor: c.quiet,
      fontFamily: getComputedStyle(document.body).fontFamily,
      attributionLogo: true,
      panes: { separatorColor: c.line },
    },
    grid: { vertLines: { color: faint(c.line, 0.5) }, horzLines: { color: faint(c.line, 0.5) } },
    rightPriceScale: { borderColor: c.line },
    timeScale: { borderColor: c.line, timeVisible: true, minBarSpacing: 0.3 },
    crosshair: { mode: 0 },
    localization: { locale: "en" },
  };
}

export class CandleChart {
  constructor(place, legend, note) {
    this.place = place;
    this.legend = legend;
    this.note = note;
    this.series = null;
    this.rows = [];
    this.more = false;
    this.loading = false;
    this.updates = 0;
    this.generation = 0;
    this.chart = library().createChart(place, chartOptions());
    this.candles = this.chart.addSeries(library().CandlestickSeries, { borderVisible: false });
    this.volumes = this.chart.addSeries(library().HistogramSeries, {
      priceScaleId: "volume",
      priceFormat: { type: "volume" },
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.missing = this.chart.addSeries(library().HistogramSeries, {
      priceScaleId: "missing",
      lastValueVisible: false,
      priceLineVisible: false,
    });
    this.candles.priceScale().applyOptions({ scaleMargins: { top: 0.06, bottom: 0.22 } });
    this.volumes.priceScale().applyOptions({ scaleMargins: { top: 0.84, bottom: 0 } });
    this.missing.priceScale().applyOptions({ scaleMargins: { top: 0, bottom: 0 } });
    this.#paint();
    onTheme(() => this.#paint());
    this.chart.subscribeCrosshairMove((at) => this.#describe(at.time ? this.#rowAt(at.time * 1000) : null));
    this.chart.timeScale().subscribeVisibleLogicalRangeChange((range) => {
      if (range && range.from < OLDER_AT) this.#loadOlder();
    });
    place.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show another series, from its newest candles on. */
  async show(series) {
    this.series = series;
    this.rows = [];
    this.generation += 1;
    const generation = this.generation;
    this.candles.setData([]);
    this.volumes.setData([]);
    this.missing.setData([]);
    this.note.textContent = "";
    this.place.setAttribute("aria-label", `Candles of ${seriesName(series)}`);
    this.legend.replaceChildren(element("span", "", "…"));
    await this.#load(generation);
  }

  /** Fetch what is new. */
  async update() {
    const { generation } = this;
    if (!this.series) return;
    if (!this.rows.length) return this.#load(generation);
    this.updates += 1;
    const recent = this.rows.slice(-HEALED_ROWS);
    const gone = this.updates % HEALED_EVERY ? -1 : recent.findIndex((row) => row.length === 1);
    const after = (gone > 0 ? recent[gone - 1] : recent.at(-1))[0];
    const answer = await this.#ask({ after_ms: after, count: 2 * PLACES });
    if (generation !== this.generation || !answer.candles.length) return;
    if (answer.start_ms > after) return this.#load(generation); // we were away for long
    this.#append(answer.candles);
  }

  #ask(window) {
    const [market, symbol, interval] = this.series;
    return getJson("/page/candles.json", { market, symbol, interval, ...window });
  }

  async #load(generation) {
    const answer = await this.#ask({ count: PLACES });
    if (generation !== this.generation) return;
    this.rows = answer.candles;
    this.more = answer.more;
    this.#redraw();
    const shown = Math.max(40, Math.round(this.place.clientWidth / 8));
    this.chart
      .timeScale()
      .setVisibleLogicalRange({ from: this.rows.length - shown, to: this.rows.length + 4 });
    this.#describe(null);
  }

  async #loadOlder() {
    if (this.loading || !this.more || !this.rows.length) return;
    const { generation } = this;
    this.loading = true;
    try {
      const answer = await this.#ask({ before_ms: this.rows[0][0], count: 2 * PLACES });
      if (generation !== this.generation) return;
      this.more = answer.more && answer.candles.length > 0 && this.rows.length < ROWS_MAX;
      if (answer.candles.length) {
        const range = this.chart.timeScale().getVisibleLogicalRange();
        this.rows = [...answer.candles, ...this.rows];
        this.#redraw();
        const by = answer.candles.length;
        if (range)
          this.chart.timeScale().setVisibleLogicalRange({ from: range.from + by, to: range.to + by });
      }
    } catch {
      // The next movement tries again.
    } finally {
      this.loading = false;
    }
  }

  #append(candles) {
    const last = this.rows.at(-1)[0];
    const changed = candles.filter((row) => row[0] < last && this.#rowAt(row[0])?.length !== row.length);
    if (changed.length) {
      const fresh = new Map(candles.map((row) => [row[0], row]));
      this.rows = this.rows.map((row) => fresh.get(row[0]) ?? row);
      this.rows.push(...candles.filter((row) => row[0] > last));
      this.#redraw();
    } else {
      for (const row of candles.filter((each) => each[0] >= last)) {
        if (row[0] === last) this.rows[this.rows.length - 1] = row;
        else this.rows.push(row);
        this.candles.update(candleOf(row));
        this.volumes.update(this.#volumeOf(row));
        this.missing.update(missingOf(row));
      }
    }
    if (this.rows.length > ROWS_MAX) this.rows = this.rows.slice(-ROWS_MAX);
    if (!this.pointed) this.#describe(null);
    this.#tell();
  }

  #redraw() {
    const present = this.rows.filter((row) => row.length > 1);
    this.decimals = decimalsOf(present.slice(-200).flatMap((row) => row.slice(1, 5)));
    this.candles.applyOptions({
      priceFormat: { type: "price", precision: this.decimals, minMove: 10 ** -this.decimals },
    });
    this.chart.timeScale().applyOptions({ secondsVisible: this.series?.[2] === "1s" });
    this.candles.setData(this.rows.map(candleOf));
    this.volumes.setData(this.rows.map((row) => this.#volumeOf(row)));
    this.missing.setData(this.rows.map(missingOf));
    this.#tell();
  }

  /** Say what is in the chart, for people and for readers of the page. */
  #tell() {
    const missing = this.rows.reduce((sum, row) => sum + (row.length === 1), 0);
    this.note.textContent = this.rows.length
      ? `${count(this.rows.length - missing)} candles loaded${missing ? `, ${count(missing)} missing between them` : ""}`
      : "no candles yet";
    this.place.dataset.candles = this.rows.length - missing;
    this.place.dataset.missing = missing;
    this.place.dataset.newest = this.rows.at(-1)?.[0] ?? "";
  }

  #volumeOf(row) {
    const time = row[0] / 1000;
    if (row.length === 1) return { time };
    return { time, value: row[5], color: row[4] >= row[1] ? this.upVolume : this.downVolume };
  }

  #rowAt(ms) {
    let low = 0;
    let high = this.rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.rows[middle][0] < ms) low = middle + 1;
      else high = middle;
    }
    return this.rows[low]?.[0] === ms ? this.rows[low] : null;
  }

  #describe(pointed) {
    this.pointed = pointed;
    const row = pointed ?? this.rows.findLast((each) => each.length > 1);
    if (!row) return this.legend.replaceChildren(element("span", "", "no candles yet"));
    const time = element("span", "", moment(row[0]));
    if (row.length === 1) return this.legend.replaceChildren(time, element("b", "", "missing"));
    const [, open, high, low, close, volume] = row;
    const change = open ? ((close - open) / open) * 100 : 0;
    const named = (name, value) =>
      element("span", "", `${name} `, element("b", "", price(value, this.decimals)));
    this.legend.replaceChildren(
      time,
      named("O", open),
      named("H", high),
      named("L", low),
      named("C", close),
      element(
        "span",
        change >= 0 ? "up" : "down",
        `${change >= 0 ? "▲ +" : "▼ −"}${Math.abs(change).toFixed(2)} %`,
      ),
      element("span", "", "V ", element("b", "", amount(volume))),
    );
  }

  #key(event) {
    const scale = this.chart.timeScale();
    const range = scale.getVisibleLogicalRange();
    if (!range || event.ctrlKey || event.metaKey || event.altKey) return;
    const width = range.to - range.from;
    const moved = (from, to) => scale.setVisibleLogicalRange({ from, to });
    const actions = {
      ArrowLeft: () => moved(range.from - width / 8, range.to - width / 8),
      ArrowRight: () => moved(range.from + width / 8, range.to + width / 8),
      PageUp: () => moved(range.from - width, range.to - width),
      PageDown: () => moved(range.from + width, range.to + width),
      "+": () => moved(range.from + width / 6, range.to),
      "-": () => moved(range.from - width / 4, range.to),
      Home: () => moved(0, width),
      End: () => scale.scrollToRealTime(),
    };
    actions["="] = actions["+"];
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  #paint() {
    const c = colours("up", "down", "missing");
    this.chart.applyOptions(chartOptions());
    this.candles.applyOptions({ upColor: c.up, downColor: c.down, wickUpColor: c.up, wickDownColor: c.down });
    this.missing.applyOptions({ color: faint(c.missing, 0.28) });
    this.upVolume = faint(c.up, 0.35);
    this.downVolume = faint(c.down, 0.35);
    if (this.rows.length) this.#redraw();
  }
}

function candleOf(row) {
  const time = row[0] / 1000;
  return row.length === 1 ? { time } : { time, open: row[1], high: row[2], low: row[3], close: row[4] };
}

function missingOf(row) {
  return row.length === 1 ? { time: row[0] / 1000, value: 1 } : { time: row[0] / 1000 };
}
