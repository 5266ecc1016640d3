// The choice of a series: a box with suggestions for market and symbol, and buttons for intervals.

import { element, marketName } from "./format.js";

const SHOWN_MAX = 60;

export class SeriesPicker {
  constructor(input, list, intervals, onChoice) {
    this.input = input;
    this.list = list;
    this.intervals = intervals;
    this.onChoice = onChoice;
    this.symbols = [];
    this.chosen = null;
    this.shown = [];
    this.at = -1;
    input.addEventListener("focus", () => input.select());
    input.addEventListener("click", () => this.#open(""));
    input.addEventListener("input", () => this.#open(input.value));
    input.addEventListener("keydown", (event) => this.#key(event));
    input.addEventListener("blur", () => this.#close());
    // A press must not take the focus before the click arrives.
    list.addEventListener("mousedown", (event) => event.preventDefault());
    list.addEventListener("click", (event) => {
      const item = event.target.closest("li[data-at]");
      if (item) this.#take(Number(item.dataset.at));
    });
  }

  /** Set the series that can be chosen. */
  offer(series) {
    const found = new Map();
    for (const [market, symbol, interval] of series) {
      const key = `${market}:${symbol}`;
      if (!found.has(key)) found.set(key, { market, symbol, intervals: [] });
      found.get(key).intervals.push(interval);
    }
    this.symbols = [...found.values()];
    if (this.chosen) this.#showIntervals();
  }

  /** Show a choice, without a call of `onChoice`. */
  choose(series) {
    this.chosen = series;
    this.input.value = `${series[1]}  ${marketName(series[0])}`;
    this.#showIntervals();
  }

  #entry() {
    const [market, symbol] = this.chosen;
    return this.symbols.find((each) => each.market === market && each.symbol === symbol);
  }

  #showIntervals() {
    const names = this.#entry()?.intervals ?? [this.chosen[2]];
    const shown = [...this.intervals.children].map((each) => each.textContent).join();
    if (shown !== names.join()) {
      this.intervals.replaceChildren(
        ...names.map((name) => {
          const button = element("button", "", name);
          button.type = "button";
          button.addEventListener("click", () => this.onChoice([this.chosen[0], this.chosen[1], name]));
          return button;
        }),
      );
    }
    for (const button of this.intervals.children) {
      button.setAttribute("aria-pressed", button.textContent === this.chosen[2]);
    }
  }

  #open(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const matches = ({ market, symbol }) => {
      const name = `${symbol} ${market} ${marketName(market)}`.toLowerCase();
      return words.every((word) => name.includes(word));
    };
    const all = this.symbols.filter(matches);
    // What begins with the first word is what was meant.
    const begins = (each) => (words[0] && each.symbol.toLowerCase().startsWith(words[0]) ? 0 : 1);
    all.sort((a, b) => begins(a) - begins(b));
    this.shown = all.slice(0, SHOWN_MAX);
    const items = this.shown.map((each, at) => {
      const item = element("li", "", each.symbol, element("small", "", marketName(each.market)));
      item.id = `series-option-${at}`;
      item.dataset.at = at;
      item.setAttribute("role", "option");
      return item;
    });
    if (!items.length) items.push(element("li", "", element("small", "", "no such series in the lake")));
    if (all.length > SHOWN_MAX)
      items.push(element("li", "", element("small", "", `${all.length - SHOWN_MAX} more; type to find`)));
    this.list.replaceChildren(...items);
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.#move(text && this.shown.length ? 0 : -1);
  }

  #close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    if (this.chosen) this.choose(this.chosen);
  }

  #move(at) {
    this.at = at;
    for (const item of this.list.children) {
      const selected = Number(item.dataset.at) === at;
      item.setAttribute("aria-selected", selected);
      if (selected) {
        this.input.setAttribute("aria-activedescendant", item.id);
        item.scrollIntoView({ block: "nearest" });
      }
    }
  }

  #take(at) {
    const { market, symbol, intervals } = this.shown[at];
    const interval = intervals.includes(this.chosen?.[2]) ? this.chosen[2] : intervals[0];
    this.onChoice([market, symbol, interval]);
    this.#close();
  }

  #key(event) {
    const open = !this.list.hidden;
    const last = this.shown.length - 1;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!open) this.#open("");
      else
        this.#move(
          event.key === "ArrowDown" ? (this.at >= last ? 0 : this.at + 1) : this.at <= 0 ? last : this.at - 1,
        );
    } else if (event.key === "Enter" && open && this.at >= 0) {
      event.preventDefault();
      this.#take(this.at);
    } else if (event.key === "Escape" && open) {
      event.preventDefault();
      this.#close();
    }
  }
}
