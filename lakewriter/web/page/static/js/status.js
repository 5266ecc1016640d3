// The state of the recorders: figures, what needs attention, connections and lag.

import { getJson } from "./api.js";
import {
  bytes,
  count,
  element,
  labelsOf,
  marketName,
  milliseconds,
  short,
  span,
  tableRow,
} from "./format.js";

// A disk that is full sooner is marked.
const FULL_SOON_DAYS = 14;

// Findings that keep candles of a living recorder from the lake.
const HINDERS = new Set(["hanging_recorder", "disk_full", "disk_refuses", "journal_full", "time_unknown", "unmerged"]);

export class StatusPanel {
  constructor(byId) {
    this.byId = byId;
    this.about = null;
    this.reachable = null;
    this.state = null;
    this.isKnown = true;
    this.recorders = [];
    this.labels = labelsOf(byId("markets"));
  }

  setServer(about) {
    this.about = about;
    this.#pill();
  }

  setReachable(reachable) {
    this.reachable = reachable;
    this.#pill();
  }

  async update() {
    try {
      this.state = await getJson("/page/status.json");
    } catch (error) {
      this.#unknown(error);
      throw error;
    }
    this.isKnown = true;
    this.recorders = this.state.recorders
      .filter((each) => each.state === "recording" && each.status)
      .map((each) => each.status);
    this.#pill();
    this.#attention(this.state.attention);
    this.#tiles([
      ...(this.recorders.length ? recorderTiles(this.state, this.recorders) : []),
      ...lakeTiles(this.state),
    ]);
    this.#markets();
  }

  /** Show that the status cannot be read: the last one may be wrong by now. */
  #unknown({ message, hint, status }) {
    this.isKnown = false;
    this.#pill();
    // That the server does not answer is shown by the pill.
    if (!status) return;
    const more = hint ? ` (${hint})` : "";
    this.#attention([{ sentence: `the status cannot be read: ${message}${more}`, command: "" }]);
  }

  #pill() {
    const [state, text] = this.#condition();
    this.byId("connection").dataset.state = state;
    if (this.byId("connection-text").textContent !== text) this.byId("connection-text").textContent = text;
  }

  #condition() {
    if (this.reachable === false) return ["bad", "disconnected, retrying"];
    if (!this.isKnown) return ["bad", "status unknown"];
    if (this.reachable === null || !this.about || !this.state) return ["wait", "connecting"];
    if (this.state.recorders.some((each) => each.state === "dead")) return ["warn", "recorder died"];
    if (!this.recorders.length) return ["wait", "no recorder here"];
    const { overdue_series: overdue, silent_series: silent, attention } = this.state;
    if (attention.some(({ kind }) => HINDERS.has(kind))) return ["bad", "recording is hindered"];
    if (overdue) return ["warn", `${count(overdue)} series overdue`];
    if (silent) return ["warn", `${count(silent)} series silent`];
    return attention.length ? ["warn", "recording, needs you"] : ["good", "recording"];
  }

  #attention(items) {
    const list = this.byId("attention-list");
    const text = JSON.stringify(items);
    if (list.dataset.shown === text) return;
    list.dataset.shown = text;
    this.byId("attention").hidden = !items.length;
    list.replaceChildren(
      ...items.map(({ sentence, command }) => {
        const item = element("li", "", sentence);
        item.dataset.state = "bad";
        if (command) item.append(element("br"), element("code", "", command));
        return item;
      }),
    );
  }

  #tiles(tiles) {
    const place = this.byId("tiles");
    // Tiles stay where they are, so readers of the page are not disturbed.
    while (place.children.length > tiles.length) place.lastChild.remove();
    tiles.forEach(([name, value, detail = "", kind = ""], at) => {
      if (!place.children[at]) place.append(element("div", "", element("dt"), element("dd")));
      const [dt, dd] = place.children[at].children;
      place.children[at].dataset.state = kind;
      if (dt.textContent !== name) dt.textContent = name;
      if (dd.dataset.shown === `${value}|${detail}`) return;
      dd.dataset.shown = `${value}|${detail}`;
      dd.replaceChildren(value, element("small", "", detail || "\u00a0"));
      dd.title = detail ? `${value}, ${detail}` : value;
    });
  }

  #markets() {
    const markets = this.recorders.flatMap((each) => each.markets ?? []);
    this.byId("markets-card").hidden = !markets.length;
    if (!markets.length) return;
    const one = this.recorders[0];
    this.byId("recorder-name").textContent = this.recorders
      .map(
        (each) =>
          `${each.recorder} on ${each.host}, pid ${each.pid}, for ${span(this.state.at_ms - each.started_at_ms)}`,
      )
      .join("; ");
    const rows = markets.map((market) => {
      const offset = market.clock_offset_ms;
      const rate =
        market.clock_rate !== 1
          ? `runs ${+market.clock_rate.toFixed(2)} times as fast`
          : offset === null
            ? "unknown"
            : milliseconds(offset);
      const cells = [
        marketName(market.market),
        ...["series", "connections", "reconnects", "rotations", "replaced"].map((name) =>
          count(market[name]),
        ),
        rate,
      ];
      return tableRow(cells, this.labels, (at) => at > 0);
    });
    this.byId("markets").tBodies[0].replaceChildren(...rows);
    this.byId("lags").replaceChildren(
      ...[
        ["Streamed, end to disk", spread(one.streamed_ms)],
        ["Candles from REST", spread(one.rest_ms)],
        ["Journal commits", spread(one.commit_ms)],
        ["Candles in a commit", one.commit_candles?.count ? `up to ${count(one.commit_candles.most)}` : "–"],
        ["Waiting for a commit", `${count(one.queued)} of ${count(one.queue_max)}`],
        [
          "Last flush",
          one.last_flush
            ? `${count(one.last_flush.candles)} candles in ${one.last_flush.seconds.toFixed(2)} s`
            : "none yet",
        ],
      ].map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value))),
    );
  }
}

/** The figures of the living recorders: a name, a value, a detail, and how it looks. */
function recorderTiles(state, all) {
  const [one] = all;
  const late = parts(
    [state.polled_series, "polled"],
    [state.silent_series, "silent"],
    [state.overdue_series, "overdue"],
  );
  const streamed = one.streamed_ms;
  const healing = state.healing_candles;
  const tiles = [
    ["Series", count(state.series), late || "all live", late ? "warn" : ""],
    ["Lag", milliseconds(state.lag_ms), streamed.count ? `99 % in ${milliseconds(streamed.percent_99)}` : ""],
    ["Candles today", count(state.candles_today), `${count(sum(all, "recorded"))} in all`],
    [
      "Healing",
      count(healing),
      parts(
        [sum(all, "healed"), "healed"],
        [sum(all, "unhealable"), "given up"],
      ) || "no gap so far",
      healing ? "warn" : "",
    ],
    [
      "Connections",
      count(sum(all, "connections")),
      parts([sum(all, "reconnects"), "reconnects"], [sum(all, "rotations"), "rotations"]) || "no reconnect",
    ],
    ["Not flushed yet", count(state.buffered), `${bytes(state.journal_bytes)} journal`],
  ];
  const waits = largest(all, "commit_waits_ms");
  if (waits > 1000)
    tiles.unshift(["Disk refuses", milliseconds(waits), `${count(sum(all, "refusals"))} refusals`, "bad"]);
  return tiles;
}

/** The figures of the lake. */
function lakeTiles({ size, disk, gaps }) {
  const about = size.is_estimated ? "about " : "";
  const tiles = [
    ["Lake", bytes(size.file_bytes), `${about}${short(size.rows)} rows`],
  ];
  if (gaps.reasonless_candles) {
    tiles.unshift([
      "Open gaps",
      count(gaps.reasonless_candles),
      `of ${count(gaps.reasonless_series)} series`,
      "bad",
    ]);
  }
  if (disk) {
    const days = disk.days_until_full;
    const full =
      days === null
        ? `of ${bytes(disk.total_bytes)}`
        : days > 3650
          ? "full in 10 years or more"
          : `full in ${count(Math.floor(days))} days`;
    tiles.push([
      "Disk left",
      bytes(disk.free_bytes),
      full,
      days !== null && days < FULL_SOON_DAYS ? "bad" : "",
    ]);
  }
  return tiles;
}

const parts = (...named) =>
  named
    .filter(([number]) => number)
    .map(([number, what]) => `${count(number)} ${what}`)
    .join(", ");

const sum = (all, name) => all.reduce((total, each) => total + (each[name] ?? 0), 0);

function largest(all, name) {
  const known = all.map((each) => each[name]).filter((value) => value !== null && value !== undefined);
  return known.length ? Math.max(...known) : null;
}

function spread(distribution) {
  if (!distribution?.count) return "–";
  return `half ${milliseconds(distribution.half)}, 99 % ${milliseconds(distribution.percent_99)}`;
}
