// The page: it joins its parts, and keeps them up to date while it is visible.

import { getJson, onReachable, Repeater } from "./api.js";
import { CandleChart } from "./chart.js";
import { seriesId } from "./format.js";
import { Gaps } from "./gaps.js";
import { Heatmap } from "./heatmap.js";
import { SeriesPicker } from "./picker.js";
import { SqlBox } from "./sql.js";
import { StatusPanel } from "./status.js";

const CANDLES_MS = 1_000;
const STATUS_MS = 2_000;
const GAPS_MS = 10_000;
const SERIES_MS = 20_000;
const COVERAGE_MS = 60_000;
const REMEMBERED = "lakewriter.series";

const byId = (id) => document.getElementById(id);

const chart = new CandleChart(byId("chart"), byId("legend"), byId("chart-note"));
const picker = new SeriesPicker(byId("series-input"), byId("series-list"), byId("intervals"), choose);
const heatmap = new Heatmap(
  {
    place: byId("heatmap"),
    text: byId("heatmap-cell"),
    legend: byId("heatmap-legend"),
    filter: byId("coverage-filter"),
    more: byId("coverage-more"),
    days: byId("coverage-days"),
  },
  (series) => choose(series, true),
);
const gaps = new Gaps(
  {
    table: byId("gaps"),
    sum: byId("gaps-sum"),
    note: byId("gaps-note"),
    unexplained: byId("gaps-unexplained"),
  },
  (series) => choose(series, true),
);
const panel = new StatusPanel(byId);

let about = null;
let chosen = null;

/** Show the candles of a series, and remember it in the page's address. */
function choose(series, scroll = false) {
  const changed = !chosen || seriesId(series) !== seriesId(chosen);
  chosen = series;
  picker.choose(series);
  history.replaceState(null, "", `#${seriesId(series)}`);
  try {
    localStorage.setItem(REMEMBERED, seriesId(series));
  } catch {
    // Private windows may refuse it.
  }
  document.title = `${series[1]} ${series[2]} · lakewriter`;
  if (changed) chart.show(series).catch(() => {});
  if (scroll) {
    byId("chart-title").scrollIntoView({ behavior: "smooth", block: "start" });
    byId("chart").focus({ preventScroll: true });
  }
}

function remembered() {
  let stored = "";
  try {
    stored = localStorage.getItem(REMEMBERED) ?? "";
  } catch {
    // As above.
  }
  return [addressed(), stored];
}

/** Return the series that the page's address names; "" if it is damaged, such as "#%". */
function addressed() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return "";
  }
}

async function updateSeries() {
  const { series } = await getJson("/page/series.json");
  picker.offer(series);
  heatmap.offer(series);
  if (chosen || !series.length) return;
  const known = new Map(series.map((each) => [seriesId(each), each]));
  const usual = series.find(([, symbol, interval]) => symbol.startsWith("BTC") && interval === "1m");
  choose(
    remembered()
      .map((id) => known.get(id))
      .find(Boolean) ??
      usual ??
      series[0],
  );
}

async function learnAbout() {
  about = await getJson("/page/about.json");
  byId("lake-name").textContent = about.lake;
  byId("version").textContent = `lakewriter ${about.version}.`;
  byId("logout").hidden = !about.login;
  panel.setServer(about);
  if (about.sql && byId("sql-card").hidden) {
    byId("sql-card").hidden = false;
    const box = new SqlBox({
      form: byId("sql-form"),
      text: byId("sql-text"),
      runButton: byId("sql-run"),
      stop: byId("sql-stop"),
      csv: byId("sql-csv"),
      examples: byId("sql-examples"),
      state: byId("sql-state"),
      views: byId("sql-views"),
      place: byId("sql-answer"),
      chartPlace: byId("sql-chart"),
    });
    await box.begin();
  }
}

/** Return a function that shows an error in an element; the next answer replaces it. */
function says(id) {
  return ({ message, hint }) => {
    byId(id).textContent = hint ? `${message} (${hint})` : message;
  };
}

const repeaters = [
  new Repeater(600_000, learnAbout),
  new Repeater(SERIES_MS, updateSeries),
  new Repeater(STATUS_MS, () => panel.update()),
  new Repeater(CANDLES_MS, () => chart.update(), says("chart-note")),
  new Repeater(GAPS_MS, () => gaps.update(), says("gaps-sum")),
  new Repeater(COVERAGE_MS, () => heatmap.update(), says("heatmap-cell")),
];

onReachable((is) => {
  panel.setReachable(is);
  // A server that is back may be another one.
  if (is) repeaters.forEach((each) => each.now());
});
addEventListener("hashchange", () => {
  const series = addressed().split(":");
  if (series.length === 3) choose(series);
});
repeaters.forEach((each) => each.now());
