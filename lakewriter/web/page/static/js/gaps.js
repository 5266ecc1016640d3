// The missing candles, with their reasons. Those without a reason come first.

import { getJson } from "./api.js";
import { count, element, labelsOf, moment, seriesName, tableRow } from "./format.js";

const DAYS = 30;
const SHOWN_MAX = 100;

const REASONS = {
  pending: "being fetched",
  exchange_halt: "exchange halt",
  not_listed: "not listed yet",
  delisted: "delisted",
  delivered: "delivered",
  unhealable: "cannot be healed",
  forgotten: "removed on purpose",
  left: "left on purpose",
  unexplained: "no reason known",
};

export class Gaps {
  constructor({ table, sum, note, unexplained }, onChoice) {
    this.body = table.tBodies[0];
    this.labels = labelsOf(table);
    Object.assign(this, { table, sum, note, unexplained, onChoice });
    this.answer = null;
    unexplained.addEventListener("change", () => this.#drawRows());
  }

  async update() {
    const answer = await getJson("/page/gaps.json", { days: DAYS });
    const same = JSON.stringify(answer) === JSON.stringify(this.answer);
    this.answer = answer;
    if (!same) this.#drawRows();
    this.#drawSum();
  }

  #drawSum() {
    const { candles, without_reason: withoutReason, days } = this.answer;
    const span = days === 1 ? "the last day" : `the last ${days} days`;
    this.sum.textContent = candles
      ? `${count(candles)} candles of ${span}, ${withoutReason ? count(withoutReason) : "none"} without a reason`
      : `none in ${span}`;
  }

  #drawRows() {
    if (!this.answer) return;
    const { gaps, left_out: leftOut } = this.answer;
    const wanted = gaps.filter((gap) => !this.unexplained.checked || !gap.has_reason);
    this.body.replaceChildren(...wanted.slice(0, SHOWN_MAX).map((gap) => this.#row(gap)));
    const hidden = Math.max(0, wanted.length - SHOWN_MAX) + leftOut;
    this.note.textContent = hidden ? `${count(hidden)} more: lakewriter gaps` : "";
    this.table.hidden = !wanted.length;
  }

  #row(gap) {
    const link = element("button", "link", seriesName(gap.series));
    link.type = "button";
    link.addEventListener("click", () => this.onChoice(gap.series));
    const kind = gap.has_reason ? (gap.reason === "pending" ? "badge wait" : "badge") : "badge bad";
    const cells = [
      link,
      moment(gap.start_ms),
      count(gap.candles),
      element("span", kind, REASONS[gap.reason] ?? gap.reason),
      gap.error,
    ];
    const row = tableRow(cells, this.labels, (at) => at === 2);
    row.dataset.reason = gap.reason;
    return row;
  }
}
