// @ts-check
// A table that is calm: rows are changed in place, and nothing moves under a pointer, a tick or a pause.
import { address, ask, asked, screen } from "./address.js";
import { el, fill } from "./dom.js";
import { number } from "./wording.js";

/** @typedef {import("./stream.js").Picture} Picture */
/**
 * @typedef {object} Column
 * @property {string} title
 * @property {string[]} uses the fields of a row that the cell is made of
 * @property {(row: any) => import("./dom.js").Child | import("./dom.js").Child[]} cell
 * @property {string} [sort] what it can be sorted by
 * @property {boolean} [right] numbers are aligned right
 * @property {boolean} [far] it is left out where there is no room: the opened row tells it
 * @property {boolean} [flip] it shows an age of what is sorted by its beginning
 */
/**
 * @typedef {object} Options
 * @property {string} name what it is a table of, for those who hear it
 * @property {Column[]} columns
 * @property {(row: any) => string} key the same for the same thing, however often it is sent
 * @property {() => import("./dom.js").Child[]} empty what to say, and to do, where there is nothing
 * @property {string} [one] what a row is: where something is asked of the screen and nothing found, it says so with a link to all
 * @property {string} [sortedBy]
 * @property {(row: any) => string | null} [mark] a class for the whole row
 * @property {boolean} [ticks] rows can be ticked
 * @property {(rows: any[]) => void} [onTick]
 * @property {boolean} [pages]
 * @property {boolean} [stacks] on a phone a row stands as a block, its cells below each other: for tables that are text
 */

export class Table {
  /** @param {Options} options */
  constructor(options) {
    this.options = options;
    /** @type {Map<string, { tr: HTMLElement, row: any, cells: HTMLElement[] }>} */
    this.shown = new Map();
    /** @type {Set<string>} */
    this.ticked = new Set();
    this.isPaused = false;
    this.isOver = false;
    /** @type {Picture | null} */
    this.waiting = null;
    /** Something else was asked for: what comes next takes its place, whatever the pointer does. */
    this.isAskedAnew = true;
    // Where rows stand as blocks, browsers take them for no table any more: the roles say that it is one.
    this.head = el("tr", { role: "row" });
    this.body = el("tbody", { role: "rowgroup" });
    this.notice = el("button", { type: "button", class: "notice", hidden: true, onclick: () => this.release() });
    this.empty = el("div", { class: "empty", hidden: true });
    this.scroll = el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": options.name },
      el("table", { role: "table", class: options.stacks && "stacks" }, el("caption", { class: "hidden" }, options.name), el("thead", { role: "rowgroup" }, this.head), this.body));
    this.foot = el("div", { class: "foot" });
    this.skipped = el("p", { class: "banner warn", hidden: true });
    this.element = el("section", { class: "panel table" }, this.skipped, this.scroll, this.empty, this.foot);
    this.body.addEventListener("pointerenter", (event) => (this.isOver = /** @type {PointerEvent} */ (event).pointerType === "mouse"));
    this.body.addEventListener("pointerleave", () => {
      this.isOver = false;
      this.release(false);
    });
    this.body.addEventListener("focusout", () => setTimeout(() => this.release(false)));
    this.drawHead();
  }

  drawHead() {
    const sort = asked().get("sort") ?? this.options.sortedBy ?? "";
    const heads = this.options.columns.map(({ title, sort: by, right, flip, far }) => {
      const direction = by && sort.replace("-", "") === by ? (sort.startsWith("-") ? "descending" : "ascending") : null;
      const turn = () => ask({ sort: direction === "ascending" ? `-${by}` : (by ?? null), cursor: null });
      const shown = direction && flip ? (direction === "ascending" ? "descending" : "ascending") : direction;
      return el("th", { scope: "col", role: "columnheader", class: kind(right, far), "aria-sort": shown },
        by ? el("button", { type: "button", onclick: turn }, title) : title);
    });
    if (this.options.ticks) {
      const tickAll = (/** @type {Event} */ event) => this.tickAll(/** @type {HTMLInputElement} */ (event.target).checked);
      this.all = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", "aria-label": "Tick all on this page", onchange: tickAll }));
      heads.unshift(el("th", { scope: "col", role: "columnheader", class: "tick" }, this.all));
    }
    this.head.replaceChildren(...heads);
  }

  /** Whether rows must keep their places now. */
  get isHeld() {
    return this.isPaused || this.isOver || this.ticked.size > 0 || this.body.contains(document.activeElement);
  }

  /** Show a picture; while rows must keep their places only what is in them changes. @param {Picture} picture */
  show(picture) {
    const rows = picture.order.map((key) => picture.rows.get(key));
    const keys = rows.map((row) => this.options.key(row));
    const isNew = keys.join("\0") !== [...this.shown.keys()].join("\0");
    if (this.isHeld && this.shown.size && isNew && !this.isAskedAnew) {
      this.waiting = picture;
      const coming = new Set(keys);
      rows.forEach((row, place) => this.shown.has(keys[place]) && this.update(keys[place], row));
      for (const [key, { tr }] of this.shown) tr.classList.toggle("gone", !coming.has(key));
      this.tellWaiting(keys.filter((key) => !this.shown.has(key)).length);
    } else {
      if (this.isAskedAnew) this.ticked.clear();
      this.isAskedAnew = false;
      this.waiting = null;
      this.place(keys, rows);
      this.tellWaiting(-1);
    }
    this.drawFoot(picture);
  }

  /** @param {number} coming */
  tellWaiting(coming) {
    this.notice.hidden = coming < 0;
    const text = coming > 0 ? `${number(coming)} new · show` : "changed · show";
    if (coming >= 0 && this.notice.textContent !== text) this.notice.textContent = text;
  }

  /** Show what waits; with `force` whatever the pointer does. @param {boolean} [force] */
  release(force = true) {
    if (!this.waiting || (!force && this.isHeld)) return;
    const picture = this.waiting;
    if (force) this.tickAll(false);
    this.waiting = null;
    const rows = picture.order.map((key) => picture.rows.get(key));
    this.place(rows.map((row) => this.options.key(row)), rows);
    this.tellWaiting(-1);
    this.drawFoot(picture);
  }

  /** @param {string[]} keys @param {any[]} rows */
  place(keys, rows) {
    const coming = new Set(keys);
    for (const [key, { tr }] of this.shown) {
      if (coming.has(key)) continue;
      tr.remove();
      this.ticked.delete(key);
    }
    const before = this.shown;
    this.shown = new Map();
    let after = this.body.firstElementChild;
    rows.forEach((row, place) => {
      const key = keys[place];
      const known = before.get(key);
      if (known) {
        this.shown.set(key, known);
        known.tr.classList.remove("gone");
        this.update(key, row);
      } else this.shown.set(key, this.make(key, row));
      const { tr } = /** @type {{ tr: HTMLElement }} */ (this.shown.get(key));
      if (tr === after) after = after.nextElementSibling;
      else this.body.insertBefore(tr, after);
    });
    const { one } = this.options;
    this.scroll.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
    if (!rows.length) fill(this.empty, ...(one && location.search ? [el("h2", {}, `No ${one} matches`), el("p", {}, el("a", { href: location.pathname }, "Show all"))] : this.options.empty()));
    this.tellTicks();
  }

  /** @param {string} key @param {any} row */
  make(key, row) {
    const cells = this.options.columns.map((column, place) => {
      const cell = el(place === 0 ? "th" : "td", { class: kind(column.right, column.far), scope: place === 0 ? "row" : null, role: place === 0 ? "rowheader" : "cell" });
      fill(cell, column.cell(row));
      return cell;
    });
    const tr = el("tr", { role: "row", class: this.options.mark?.(row) ?? null }, ...cells);
    if (this.options.ticks) {
      const tick = el("input", { type: "checkbox", "aria-label": `Tick ${row.id}`, onchange: () => this.tick(key, !this.ticked.has(key)) });
      tr.prepend(el("td", { class: "tick", role: "cell" }, tick));
    }
    return { tr, row, cells };
  }

  /** @param {string} key @param {any} row */
  update(key, row) {
    const known = this.shown.get(key);
    if (!known || known.row === row) return;
    this.options.columns.forEach((column, place) => {
      if (column.uses.some((name) => JSON.stringify(known.row[name]) !== JSON.stringify(row[name]))) fill(known.cells[place], column.cell(row));
    });
    known.row = row;
    const mark = this.options.mark?.(row) ?? "";
    if (known.tr.className !== mark) known.tr.className = mark;
  }

  /** @param {string} key @param {boolean} on */
  tick(key, on) {
    if (on) this.ticked.add(key);
    else this.ticked.delete(key);
    this.tellTicks();
    if (!on) this.release(false);
  }

  /** @param {boolean} on */
  tickAll(on) {
    if (!this.options.ticks) return;
    this.ticked = new Set(on ? this.shown.keys() : []);
    this.tellTicks();
  }

  tellTicks() {
    if (!this.options.ticks) return;
    for (const [key, { tr }] of this.shown) {
      const box = tr.querySelector("input");
      if (box) box.checked = this.ticked.has(key);
    }
    if (this.all) this.all.checked = this.ticked.size > 0 && this.ticked.size === this.shown.size;
    this.options.onTick?.([...this.ticked].flatMap((key) => this.shown.get(key)?.row ?? []));
  }

  /** @param {Picture} picture */
  drawFoot(picture) {
    const { total = 0, every = total, cut, corrupt = [], corrupt_more: more } = picture.facts;
    this.skipped.hidden = !corrupt.length;
    fill(this.skipped, `Skipped, because this version cannot read them: ${corrupt.join(", ")}${more ? ` and ${number(more)} more` : ""}. Another version, or another program, wrote them.`);
    this.foot.hidden = !this.options.pages || total === 0;
    if (this.foot.hidden) return;
    const offset = Number(asked().get("cursor") ?? 0), shown = picture.order.length, limit = Number(asked().get("limit") ?? 50);
    const reachable = cut ? Math.min(total, 10000) : total;
    /** @param {string} title @param {number} cursor @param {boolean} isThere */
    const turn = (title, cursor, isThere) => {
      const query = asked();
      if (cursor > 0) query.set("cursor", String(cursor));
      else query.delete("cursor");
      return isThere && el("a", { href: address(screen(), query), class: "button" }, title);
    };
    fill(this.foot,
      el("span", {}, shown ? `${number(offset + 1)}–${number(offset + shown)} of ${number(total)}` : `0 of ${number(total)}`,
        every !== total && ` that match, ${number(every)} in all`, cut && "; only the first 10,000 can be sorted so"),
      el("span", { class: "turns" }, turn("Previous", Math.max(offset - limit, 0), offset > 0), turn("Next", offset + limit, offset + shown < reachable)));
  }

  /** Move the focus to the next row, or the one before. @param {number} step */
  step(step) {
    const links = /** @type {HTMLElement[]} */ ([...this.body.querySelectorAll("tr")].flatMap((tr) => tr.querySelector("th a, th button") ?? tr.querySelector("th") ?? []));
    const at = links.findIndex((link) => link.closest("tr")?.contains(document.activeElement));
    const next = links[at < 0 ? (step > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + step, 0), links.length - 1)];
    if (next && !next.matches("a, button")) next.tabIndex = -1;
    next?.focus();
  }

  /** Tick the row that has the focus, or take its tick off. */
  tickFocused() {
    for (const [key, { tr }] of this.shown) if (tr.contains(document.activeElement)) this.tick(key, !this.ticked.has(key));
  }
}

/** @param {boolean} [right] @param {boolean} [far] */
const kind = (right, far) => [right && "right", far && "far"].filter(Boolean).join(" ") || null;

/**
 * The line above a table: its text filter, its choices, what is told of it.
 * @param {{ hint: string, notice?: HTMLElement, extra?: import("./dom.js").Child[] }} options
 */
export function filters({ hint, notice, extra = [] }) {
  let timer = 0;
  const input = /** @type {HTMLInputElement} */ (el("input", {
    type: "search", name: "q", value: asked().get("q") ?? "", placeholder: hint, "aria-label": hint, spellcheck: "false", autocomplete: "off",
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => ask({ q: input.value.trim(), cursor: null }, { replace: true }), 200);
    },
  }));
  return el("form", { class: "filters", role: "search", onsubmit: (/** @type {Event} */ event) => event.preventDefault() }, input, ...extra, notice);
}

/**
 * Choices of one filter, each with how many rows it has.
 * @param {string} name
 * @param {[string, string, number | null][]} choices value, word, number
 */
export function chips(name, choices) {
  const chosen = asked().get(name) ?? "";
  return choices.map(([value, word, count]) =>
    el("button", {
      type: "button", class: "chip", "aria-pressed": String(chosen === value), onclick: () => ask({ [name]: value, cursor: null }),
    }, word, count !== null && el("b", {}, number(count))));
}

/**
 * The filters that the address has beside the text: each can be taken off.
 * @param {string[]} names
 */
export function taken(names) {
  const query = asked();
  return names.filter((name) => query.get(name)).map((name) =>
    el("button", { type: "button", class: "chip", "aria-pressed": "true", onclick: () => ask({ [name]: null, cursor: null }) },
      `${name.replaceAll("_", " ")}: ${query.get(name)} ×`));
}

