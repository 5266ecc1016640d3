// The state of the recorders: figures, what needs attention, connections and lag.

import { getJson } from "./api.js";
import { bytes, count, element, milliseconds, span } from "./format.js";

export class StatusPanel {
  constructor(byId) {
    this.byId = byId;
    this.about = null;
    this.reachable = null;
    this.recorders = null;
    const table = byId("markets");
    this.labels = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
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
    const state = await getJson("/status.json");
    this.recorders = state.recorders ?? [state];
    this.#pill();
    this.#attention(state.attention ?? []);
    this.#tiles(state);
    this.#markets();
  }

  #pill() {
    const [state, text] = this.#condition();
    this.byId("connection").dataset.state = state;
    if (this.byId("connection-text").textContent !== text) this.byId("connection-text").textContent = text;
  }

  #condition() {
    if (this.reachable === false) return ["bad", "disconnected, retrying"];
    if (this.reachable === null || !this.about || !this.recorders) return ["wait", "connecting"];
    if (!this.recorders.length) return ["wait", "no recorder here"];
    const overdue = sum(this.recorders, "overdue_series");
    const silent = sum(this.recorders, "silent_series");
    if (overdue) return ["warn", `${count(overdue)} series overdue`];
    if (silent) return ["warn", `${count(silent)} series silent`];
    return ["good", "recording"];
  }

  #attention(items) {
    const list = this.byId("attention-list");
    const text = JSON.stringify(items);
    if (list.dataset.shown === text) return;
    list.dataset.shown = text;
    this.byId("attention").hidden = !items.length;
    list.replaceChildren(
      ...items.map(({ what, command }) => {
        const item = element("li", "", what);
        item.dataset.state = "bad";
        if (command) item.append(element("br"), element("code", "", command));
        return item;
      }),
    );
  }

  #tiles(state) {
    const tiles = this.recorders.length ? this.#recorderTiles() : [];
    if (state.lake) tiles.push(...lakeTiles(state.lake));
    const place = this.byId("tiles");
    // Rows stay where they are, so readers of the page are not disturbed.
    while (place.children.length > tiles.length) place.lastChild.remove();
    tiles.forEach(([name, value, detail = "", kind = ""], at) => {
      if (!place.children[at]) place.append(element("div", "", element("dt"), element("dd")));
      const [dt, dd] = place.children[at].children;
      place.children[at].dataset.state = kind;
      set(dt, name);
      if (dd.dataset.shown === `${value}|${detail}`) return;
      dd.dataset.shown = `${value}|${detail}`;
      dd.replaceChildren(value, element("small", "", detail || "\u00a0"));
      dd.title = detail ? `${value}, ${detail}` : value;
    });
  }

  #recorderTiles() {
    const all = this.recorders;
    const one = all[0];
    const parts = (...named) => named.filter(([number]) => number).map(([number, what]) => `${count(number)} ${what}`).join(", ");
    const series = sum(all, "series");
    const late = parts([sum(all, "polled_series"), "polled"], [sum(all, "silent_series"), "silent"], [sum(all, "overdue_series"), "overdue"]);
    const lag = largest(all, "lag_ms");
    const streamed = one.streamed_ms;
    const tiles = [
      ["Series", count(series), late || "all live", late ? "warn" : ""],
      ["Lag", milliseconds(lag), streamed?.count ? `99 % within ${milliseconds(streamed.percent_99)}` : ""],
      ["Candles today", count(sum(all, "candles_today")), `${count(sum(all, "recorded"))} since the start`],
      ["Healing", count(sum(all, "healing_candles")), parts([sum(all, "healed"), "healed"], [sum(all, "explained"), "explained"], [sum(all, "unhealable"), "given up"]) || "no gap since the start"],
      ["Connections", count(sum(all, "connections")), parts([sum(all, "reconnects"), "reconnects"], [sum(all, "rotations"), "rotations"]) || "no reconnect"],
      ["Not flushed yet", count(sum(all, "buffered")), `${bytes(sum(all, "journal_bytes"))} journal`],
    ];
    if (sum(all, "refusals") || largest(all, "commit_waits_ms") > 1000) {
      tiles.push(["Disk refuses", count(sum(all, "refusals")), `waiting ${milliseconds(largest(all, "commit_waits_ms"))}`, "bad"]);
    }
    if (one.disk) {
      const { free_bytes: free, growth_bytes_a_day: growth } = one.disk;
      const days = growth ? Math.floor(free / growth) : null;
      tiles.push(["Disk left", bytes(free), days === null ? "" : `full in ${count(days)} days`, days !== null && days < 14 ? "bad" : ""]);
    }
    if (one.started_at_ms) tiles.push(["Running for", span(one.at_ms - one.started_at_ms), one.version ? `lakewriter ${one.version}` : ""]);
    return tiles;
  }

  #markets() {
    const markets = this.recorders.flatMap((each) => each.markets ?? []);
    this.byId("markets-card").hidden = !markets.length;
    if (!markets.length) return;
    const one = this.recorders[0];
    this.byId("recorder-name").textContent = this.recorders.map((each) => `${each.recorder} on ${each.host}, pid ${each.pid}`).join("; ");
    const rows = markets.map((market) => {
      const offset = market.clock_offset_ms;
      const rate = market.clock_rate !== 1 ? `runs ${+market.clock_rate.toFixed(2)} times as fast` : offset === null ? "unknown" : milliseconds(offset);
      const cells = [market.market.replace("_", " "), ...["series", "connections", "reconnects", "rotations", "replaced"].map((name) => count(market[name])), rate];
      const row = element("tr");
      cells.forEach((text, at) => {
        const cell = element("td", at ? "num" : "", text);
        cell.dataset.label = this.labels[at];
        row.append(cell);
      });
      return row;
    });
    this.byId("markets").tBodies[0].replaceChildren(...rows);
    this.byId("lags").replaceChildren(
      ...[
        ["Streamed candles, from end to disk", spread(one.streamed_ms)],
        ["Candles from REST", spread(one.rest_ms)],
        ["Journal commits", spread(one.commit_ms)],
        ["Candles in a commit", one.commit_candles?.count ? `up to ${count(one.commit_candles.most)}` : "–"],
        ["Waiting for a commit", `${count(one.queued)} of ${count(one.queue_max)}`],
        ["Last flush", one.last_flush ? `${count(one.last_flush.candles)} candles in ${one.last_flush.seconds.toFixed(2)} s` : "none yet"],
      ].map(([name, value]) => element("div", "", element("dt", "", name), element("dd", "", value))),
    );
  }
}

function lakeTiles(lake) {
  const days = lake.full_in_days;
  const tiles = [];
  if (lake.file_bytes !== undefined) tiles.push(["Lake", bytes(lake.file_bytes), `${count(lake.files)} files`]);
  return days === undefined || days === null ? tiles : [...tiles, ["Disk full in", `${count(days)} days`]];
}

const sum = (all, name) => all.reduce((total, each) => total + (each[name] ?? 0), 0);

function largest(all, name) {
  const known = all.map((each) => each[name]).filter((value) => value !== null && value !== undefined);
  return known.length ? Math.max(...known) : null;
}

function spread(distribution) {
  if (!distribution?.count) return "–";
  return `half ${milliseconds(distribution.half)}, 99 % ${milliseconds(distribution.percent_99)}`;
}

function set(place, text) {
  if (place.textContent !== text) place.textContent = text;
}
