// The SQL box: one statement that reads, and its answer as a table, a chart or a CSV file.

import { ApiError, getJson, request } from "./api.js";
import { chartOptions } from "./chart.js";
import { colours, count, element, onTheme } from "./format.js";

const TABLE_ROWS_MAX = 1_000;
const LINES_MAX = 6;

const EXAMPLES = [
  [
    "Newest candles",
    "SELECT market, symbol, interval, max(candle_begin_time) AS newest, count(*) AS candles\nFROM candles GROUP BY ALL ORDER BY ALL",
  ],
  ["One day by hour", "FROM resample('spot', 'BTCUSDT', '1m', '1h', since := '1d')"],
  [
    "Closes of a day",
    "SELECT candle_begin_time, symbol, close FROM candles\nWHERE interval = '1m' AND date >= current_date - 1 ORDER BY ALL LIMIT 5000",
  ],
  ["Gaps", "FROM gaps ORDER BY start DESC LIMIT 100"],
  [
    "Coverage",
    "SELECT market, symbol, interval, sum(expected) AS expected, sum(missing) AS missing\nFROM coverage GROUP BY ALL ORDER BY missing DESC",
  ],
  ["Columns", "DESCRIBE candles"],
];

export class SqlBox {
  constructor(parts) {
    Object.assign(this, parts);
    this.running = null;
    this.answer = null;
    this.chart = null;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.run();
      }
    });
    this.stop.addEventListener("click", () => this.running?.abort());
    this.csv.addEventListener("click", () => this.download());
    this.views.addEventListener("click", (event) => this.#view(event.target.dataset.view));
    this.examples.addEventListener("change", () => {
      if (!this.examples.value) return;
      this.text.value = this.examples.value;
      this.examples.value = "";
      this.text.focus();
    });
    onTheme(() => this.chart && this.#drawChart());
  }

  /** Fill the examples, with the saved queries of the lake's user. */
  async begin() {
    const add = (label, pairs) => {
      const group = element("optgroup");
      group.label = label;
      for (const [name, sql] of pairs) {
        const option = element("option", "", name);
        option.value = sql;
        group.append(option);
      }
      this.examples.append(group);
    };
    this.text.value = EXAMPLES[0][1];
    add("Statements", EXAMPLES);
    const { saved } = await getJson("/sql/saved.json");
    add(
      "Saved queries",
      saved.map(({ name, title }) => [`${name}: ${title}`, name]),
    );
  }

  async run() {
    await this.#send("json", async (response) => {
      this.answer = await response.json();
      const { rows, cut, seconds, note } = this.answer;
      const size = `${cut ? "the first " : ""}${count(rows.length)} ${rows.length === 1 ? "row" : "rows"} in ${seconds.toFixed(2)} s`;
      this.#say(note ? `${size}; ${note}` : cut ? `${size}; CSV has more` : size);
      this.#show();
    });
  }

  async download() {
    await this.#send("csv", async (response) => {
      const cut = response.headers.get("X-Lakewriter-Cut");
      const url = URL.createObjectURL(await response.blob());
      const link = element("a");
      link.href = url;
      link.download = "answer.csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 10_000);
      this.#say(cut ? `saved the first ${count(Number(cut))} rows` : "saved");
    });
  }

  async #send(format, use) {
    const sql = this.text.value.trim();
    if (!sql || this.running) return;
    this.running = new AbortController();
    this.#busy(true);
    this.#say("running …");
    try {
      const response = await request("/sql", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ sql, format }),
        signal: this.running.signal,
      });
      await use(response);
    } catch (error) {
      this.#hideAnswer();
      if (this.running.signal.aborted) this.#say("stopped");
      else if (error instanceof ApiError) this.#say(error.message, error.hint || " ");
      else throw error;
    } finally {
      this.running = null;
      this.#busy(false);
    }
  }

  /** Hide an answer that belongs to another statement. */
  #hideAnswer() {
    for (const part of [this.place, this.views, this.chartPlace]) part.hidden = true;
  }

  #busy(is) {
    this.stop.disabled = !is;
    this.runButton.disabled = is;
    this.csv.disabled = is;
  }

  /** Say one line; an error has a hint. */
  #say(what, hint = "") {
    this.state.className = hint ? "cell-text error" : "cell-text";
    this.state.replaceChildren(what);
    if (hint.trim()) this.state.append(element("br"), element("code", "", hint));
  }

  #show() {
    const { columns, rows } = this.answer;
    this.place.hidden = false;
    if (columns.map(([name]) => name).join() === "explain_key,explain_value") {
      this.place.replaceChildren(...rows.map((row) => element("pre", "", row[1])));
    } else {
      this.place.replaceChildren(this.#table(columns, rows));
    }
    this.plan = planOf(columns, rows);
    this.views.hidden = !this.plan;
    this.#view("table");
  }

  #table(columns, rows) {
    const numeric = columns.map(([, type]) => /^(u?int|float|double|halffloat|decimal)/.test(type));
    const head = element("tr");
    columns.forEach(([name, type], at) => {
      head.append(
        element(
          "th",
          numeric[at] ? "num" : "",
          name,
          element("small", "", type.replace(/^timestamp\[.*/, "time, UTC")),
        ),
      );
    });
    const body = element("tbody");
    for (const row of rows.slice(0, TABLE_ROWS_MAX)) {
      const line = element("tr");
      row.forEach((value, at) => {
        const cell = element("td", value === null ? "null" : numeric[at] ? "num" : "");
        cell.textContent = textOf(value);
        line.append(cell);
      });
      body.append(line);
    }
    const table = element("table", "", element("thead", "", head), body);
    if (rows.length <= TABLE_ROWS_MAX) return table;
    return element(
      "div",
      "",
      table,
      element("p", "quiet", `${count(rows.length - TABLE_ROWS_MAX)} more rows; CSV has them`),
    );
  }

  #view(name) {
    if (!name) return;
    for (const button of this.views.children)
      button.setAttribute("aria-pressed", button.dataset.view === name);
    this.place.hidden = name !== "table";
    this.chartPlace.hidden = name !== "chart";
    if (name === "chart") this.#drawChart();
  }

  #drawChart() {
    this.chart?.remove();
    const library = window.LightweightCharts;
    this.chart = library.createChart(this.chartPlace, chartOptions());
    const c = colours("up", "down", "missing", "good", "warn", "quiet");
    const palette = [c.up, c.down, "#009e73", c.missing, c.warn, c.quiet];
    if (this.plan.candles) {
      const series = this.chart.addSeries(library.CandlestickSeries, {
        upColor: c.up,
        downColor: c.down,
        wickUpColor: c.up,
        wickDownColor: c.down,
        borderVisible: false,
      });
      series.setData(this.plan.candles);
    } else {
      this.plan.lines.forEach(({ name, points }, at) => {
        this.chart
          .addSeries(library.LineSeries, {
            color: palette[at],
            lineWidth: 2,
            title: name,
            priceLineVisible: false,
          })
          .setData(points);
      });
    }
    this.chart.timeScale().fitContent();
  }
}

function textOf(value) {
  if (value === null) return "null";
  if (typeof value === "object") return JSON.stringify(value);
  if (typeof value === "string") return value.replace(/^(\d{4}-\d\d-\d\d)T([\d:.]+)Z$/, "$1 $2");
  return String(value);
}

/**
 * How an answer can be drawn: candles if it has their columns, else one line for each number,
 * or for each value of its only text. Null if it has no times or no numbers.
 */
function planOf(columns, rows) {
  const at = (wanted) => columns.findIndex(([name]) => name === wanted);
  const time = columns.findIndex(([, type]) => /^(timestamp|date)/.test(type));
  if (time < 0 || rows.length < 2) return null;
  const second = (row) =>
    Math.floor(
      Date.parse(row[time].includes("Z") || row[time].length <= 10 ? row[time] : `${row[time]}Z`) / 1000,
    );
  const sorted = rows
    .filter((row) => row[time] !== null && Number.isFinite(second(row)))
    .sort((a, b) => second(a) - second(b));
  const texts = columns.flatMap(([, type], i) => (/^(string|large_string|dictionary)/.test(type) ? [i] : []));
  const numbers = columns.flatMap(([, type], i) => (/^(u?int|float|double|decimal)/.test(type) ? [i] : []));
  const unique = (points) => [...new Map(points.map((point) => [point.time, point])).values()];
  const parts = ["open", "high", "low", "close"].map(at);
  const several = texts.some((i) => new Set(sorted.map((row) => row[i])).size > 1);
  if (parts.every((i) => i >= 0) && !several) {
    const candles = sorted.map((row) => {
      const [open, high, low, close] = parts.map((i) => row[i]);
      return open === null ? { time: second(row) } : { time: second(row), open, high, low, close };
    });
    return { candles: unique(candles) };
  }
  if (!numbers.length) return null;
  const group = texts.find((i) => new Set(sorted.map((row) => row[i])).size > 1);
  const value = at("close") >= 0 ? at("close") : numbers[0];
  const named = new Map();
  for (const row of sorted) {
    for (const i of group === undefined ? numbers : [value]) {
      const name = group === undefined ? columns[i][0] : String(row[group]);
      if (!named.has(name) && named.size >= LINES_MAX) continue;
      if (!named.has(name)) named.set(name, []);
      const number = row[i] === null ? null : Number(row[i]);
      named
        .get(name)
        .push(
          Number.isFinite(number) && number !== null
            ? { time: second(row), value: number }
            : { time: second(row) },
        );
    }
  }
  return { lines: [...named].map(([name, points]) => ({ name, points: unique(points) })) };
}
