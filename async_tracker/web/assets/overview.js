// @ts-check
// Overview: is anything wrong, since when, what can be done; and how much is going on.
import { address } from "./address.js";
import { BUSY, INSTANCES, OLDEST, ORPHANS, ends, shown, spark } from "./chart.js";
import { el, fill } from "./dom.js";
import { functionAddress } from "./functions.js";
import { badge, counted, cut, duration, number, percent, since } from "./wording.js";

/** The screen. */
export function overview() {
  const banner = el("div", { class: "banners" }), cards = el("section", { class: "cards", "aria-label": "Now" });
  const chart = el("section", { class: "panel chart-panel", hidden: true });
  const busiest = el("section", { class: "panel" }), attention = el("section", { class: "panel attention" });
  const element = el("div", { class: "screen" }, banner, cards, el("div", { class: "two" }, attention, chart), busiest);
  let drawn = "";
  return {
    element,
    title: "Overview",
    topic: () => "overview",
    /** @param {import("./stream.js").Picture} picture */
    show({ facts }) {
      fill(banner, ...(facts.attention ?? []).filter(isUrgent).slice(0, 3).map(said));
      fill(cards, ...cardsOf(facts));
      const pointsNow = JSON.stringify([facts.points, facts.deploys]);
      if (pointsNow !== drawn && !chart.matches(":hover, :focus-within")) {
        drawn = pointsNow;
        drawChart(chart, facts);
      }
      fill(busiest, ...busiestOf(facts.busiest));
      fill(attention, ...attentionOf(facts));
    },
  };
}

/** @param {any} item */
const isUrgent = (item) => item.kind === "unserved" || item.kind.startsWith("stalled") || (item.kind === "dead" && item.orphans > 0);

/** One sentence, and the one next step. @param {any} item */
function said(item) {
  const name = el("code", {}, cut(item.label ?? item.id, 40));
  if (item.kind === "unserved") {
    return row("bad", [`Queue `, name, ` has ${counted(item.due, "job")} due and no worker.`], "queues", {}, "Show queues");
  }
  if (item.kind === "dead") {
    return row("bad", [name, " is dead", since(item.died ?? item.beat, "", " since "), `; ${counted(item.orphans, "job")} not yet given back.`],
      "orphans", { instance: item.id }, "Show orphans");
  }
  const waits = item.busy ? "; its jobs wait." : ".";  // how many it has, it could not tell since
  if (item.kind === "stalled_blocked") {
    return row("warn", [name, " is blocked", since(item.blocked ?? item.beat, "", " for "), ...(item.line ? [" at ", el("code", {}, short(item.line))] : []), waits],
      "instances", { open: item.id }, "Show stack");
  }
  return row("warn", [name, " is silent", since(item.beat, "", " for "), `: ${item.why}`, waits], "instances", { open: item.id }, "Show instance");
}

/** @param {string} kind @param {import("./dom.js").Child[]} text @param {string} to @param {Record<string, string>} query @param {string} step */
function row(kind, text, to, query, step) {
  return el("p", { class: `banner ${kind}` }, el("span", {}, ...text), el("a", { href: address(to, query) }, step));
}

/** A path is told by its end. @param {string} line */
export const short = (line) => line.replace(/[^\s]*\/(?=[^/\s]+:\d+)/g, "");

/** @param {any} facts */
function cardsOf(facts) {
  const states = facts.states ?? {};
  const stalled = (states.stalled_blocked ?? 0) + (states.stalled_silent ?? 0);
  const also = [stalled && `${stalled} stalled`, states.returning && `${states.returning} returning`, states.quiet && `${states.quiet} quiet`, states.draining && `${states.draining} draining`, states.dead && `${states.dead} dead`].filter(Boolean);
  const points = shown(facts.points ?? []), hour = facts.hour, day = facts.day;
  /** The last hour as a line, where there is one. @param {number} place */
  const line = (place) => (points.filter((/** @type {any[]} */ point) => point.length > 1).length > 2 ? points.map((/** @type {any[]} */ point) => point[place] ?? null) : null);
  return [
    card("Instances", facts.states ? number(states.alive ?? 0) : "—", facts.states && ["alive", ...also].join(", "), address("instances"), stalled ? "warn" : "", line(INSTANCES)),
    card("In flight", number(facts.busy), facts.slots ? `of ${counted(facts.slots, "slot")}` : "", address("jobs"), "", line(BUSY)),
    card("Started per minute", facts.rate === null || facts.rate === undefined ? "…" : number(Math.round(facts.rate)), "", address("functions"), "", line(1)),
    card("Orphans", number(facts.orphans), facts.orphans ? "not yet given back" : "", address("orphans"), facts.orphans ? "bad" : "", line(ORPHANS)),
    card("Recovered", number(day?.recovered), "in 24 h", address("events", { type: "recovered" }), "", line(4)),
    card("Oldest wait", facts.oldest ? since(facts.oldest.since) : facts.due === undefined ? "—" : "0 s", facts.oldest ? cut(facts.oldest.queue, 24) : facts.due === undefined ? "" : "nothing is due", address("queues"), "", line(OLDEST)),
    card("Failed", number(hour?.failed), hour ? `of ${number(hour.ended)} in 1 h` : "", address("functions", { sort: "-failed" }), "", line(3), "bad"),
  ];
}

/**
 * @param {string} title @param {import("./dom.js").Child} value @param {string} beside @param {string} href
 * @param {string} [kind] @param {number[] | null} [series] @param {string} [lineKind]
 */
function card(title, value, beside, href, kind = "", series = null, lineKind = "") {
  return el("a", { class: `card ${kind}`, href }, el("h2", {}, title), el("div", { class: "n" }, value, " ", el("small", {}, beside)), series && spark(series, lineKind));
}

/** @param {HTMLElement} panel @param {any} facts */
function drawChart(panel, facts) {
  panel.hidden = !facts.points?.some((/** @type {any[]} */ point) => point.length > 1);
  if (panel.hidden) return;
  const { frame, axis, told } = ends(shown(facts.points), facts.deploys);
  panel.replaceChildren(el("h2", {}, "Jobs per minute ", told), frame, axis);
}

/** @param {any[] | undefined} rows */
function busiestOf(rows) {
  if (!rows?.length) return [el("h2", {}, "Busiest functions"), el("p", { class: "empty" }, rows ? "No run has been counted in the last hour." : "Nothing is known yet.")];
  const hasPercentiles = "run_time_p50" in rows[0];
  const times = hasPercentiles ? ["p50", "p95", "p99"] : ["Mean run"];
  return [
    el("h2", {}, "Busiest functions"),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Busiest functions" }, el("table", {},
      el("thead", {}, el("tr", {}, ...["Function", "Queue", "Per min", ...times, "Failed"].map((title, place) => el("th", { scope: "col", class: place > 1 ? "right" : null }, title)))),
      el("tbody", {}, ...rows.map((item) => el("tr", {},
        el("th", { scope: "row" }, el("a", { class: "id", href: functionAddress(item), title: item.function ?? "" }, cut(item.function ?? "(no name)", 36))),
        el("td", { class: "dim", title: item.queue ?? "" }, cut(item.queue ?? "—", 22)),
        el("td", { class: "right" }, item.rate === null || item.rate === undefined ? "…" : number(Math.round(item.rate))),
        ...(hasPercentiles ? times.map((which) => item[`run_time_${which}`]) : [item.run]).map((value) => el("td", { class: "right" }, duration(value))),
        el("td", { class: `right${item.failed_share > 0.05 ? " bad-text" : ""}` }, percent(item.failed_share))))))),
  ];
}

/** @param {any} facts */
function attentionOf(facts) {
  const items = facts.attention ?? [];
  const more = facts.attention_more ?? 0;
  const title = el("h2", {}, "Needs attention ", el("span", {}, number(items.reduce((/** @type {number} */ sum, /** @type {any} */ item) => sum + (item.more ?? 1), more))));
  if (!items.length) return [title, el("p", { class: "empty" }, !facts.attention ? "Nothing is known yet." : facts.jobs_seen === false ? "Looking at the jobs…" : "Nothing: every instance beats, every queue with work has a worker, no job is past its timeout, nothing is quarantined.")];
  return [title, el("ul", { class: "list" }, ...items.map((/** @type {any} */ item) => el("li", {}, el("span", { class: "kind" }, badge(item.kind)), attentionText(item)))),
    more > 0 && el("p", { class: "empty" }, `and ${number(more)} more`)];
}

/** @param {any} item */
function attentionText(item) {
  /** @param {string} href @param {import("./dom.js").Child[]} sub @param {import("./dom.js").Child[]} beside */
  const text = (href, sub, beside) => [
    el("span", { class: "what" }, el("a", { class: "id", href, title: item.id }, cut(item.id, 32)), el("span", { class: "sub" }, ...sub)),
    el("span", { class: "beside" }, ...beside),
  ];
  if (item.kind === "quarantined") {
    return text(address("quarantine", { q: item.id }), [`${item.function ?? "?"}: ${counted(item.deaths, "worker")} died running it`], [since(item.at, " ago")]);
  }
  if (item.kind === "overdue" && item.more) {
    return el("span", { class: "what" }, el("a", { href: address("jobs", { overdue: "1" }) }, `${counted(item.more, "more job")} past ${item.more === 1 ? "its" : "their"} timeout`));
  }
  if (item.kind === "overdue") {
    return text(address("jobs", { open: item.id }), [`${item.function ?? "?"}: should have ended within ${duration(item.timeout)}`], [since(item.started)]);
  }
  if (item.kind === "another_version") return text(address("doctor"), ["this version cannot read it; another version, or another program, wrote it"], [counted(item.more, "record")]);
  if (item.kind === "unserved") return text(address("queues", { q: item.id }), [`${item.library}: no instance works on it`], [`${number(item.due)} due`]);
  if (item.kind === "dead") {
    return text(address("instances", { open: item.id }), [item.why || "dead", since(item.died ?? item.beat, "", ", since ")], [item.orphans ? counted(item.orphans, "orphan") : "settled"]);
  }
  const where = item.line ? [" at ", short(item.line)] : [];
  return text(address("instances", { open: item.id }), [item.kind === "stalled_blocked" ? "blocked" : "silent", ...where], [since(item.blocked ?? item.beat)]);
}

