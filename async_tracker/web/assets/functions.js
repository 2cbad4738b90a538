// @ts-check
// Functions: how many runs of each have started in a window, how they ended, how long they took. One of them opened: its charts.
import { address, asked, opened } from "./address.js";
import { ends, P50, P95, shown, spark, times, WAIT } from "./chart.js";
import { el, facts, fill } from "./dom.js";
import { eventList } from "./events.js";
import { chips, filters, taken, Table } from "./table.js";
import { cut, duration, name, number, percent } from "./wording.js";

/** @param {string} title @param {string} name @param {string} [sort] @returns {import("./table.js").Column} */
const count = (title, name, sort) => ({ title, sort, right: true, uses: [name], cell: (row) => el("span", { class: row[name] ? null : "dim" }, number(row[name])) });

/** @param {string} title @param {string} name @returns {import("./table.js").Column} */
const time = (title, name, far = false) => ({ title, right: true, far, sort: name === "run_time_p99" ? undefined : name, uses: [name], cell: (row) => duration(row[name]) });

/** What the address asks for where it says nothing. */
const HOUR = "1h";
/** @type {[string, string, null][]} */
const WINDOWS = [["15m", "15 min", null], ["", "1 h", null], ["24h", "24 h", null], ["7d", "7 d", null], ["all", "all", null]];

/** Where a function is opened, beside what is asked of the screen. @param {any} row */
export const functionAddress = (row) => opened("functions", row.function === null ? null : JSON.stringify([row.function, row.queue ?? ""]));

/** The screen. */
export function functions() {
  const table = new Table({
    name: "Functions",
    columns: [
      { title: "Function", sort: "function", uses: ["function"], cell: (row) => el("a", { class: "id", href: functionAddress(row), title: row.function ?? "" }, cut(row.function ?? "(no name)", 40)) },
      { title: "Queue", sort: "queue", uses: ["queue"], cell: (row) => name(row.queue, 24) },
      { title: "Per min", right: true, sort: "rate", uses: ["rate"], cell: (row) => (row.rate === null ? "…" : number(Math.round(row.rate))) },
      { title: "Over time", uses: ["trend"], cell: (row) => row.trend && spark([...row.trend].map((level) => (level === "." ? null : parseInt(level, 36)))) },
      { title: "Run p50", right: true, sort: "run_time_p50", uses: ["run_time_p50", "run"], cell: (row) => (row.run_time_p50 === undefined ? el("span", { title: "mean of all time" }, duration(row.run)) : duration(row.run_time_p50)) },
      time("p95", "run_time_p95"),
      time("p99", "run_time_p99", true),
      time("max", "run_time_max", true),
      time("Wait p50", "queue_wait_p50", true),
      time("Wait p95", "queue_wait_p95"),
      count("Started", "started", "started"),
      count("Succeeded", "succeeded", "succeeded"),
      count("Failed", "failed", "failed"),
      { title: "Failed %", right: true, uses: ["failed_share"], cell: (row) => el("span", { class: row.failed_share > 0.05 ? "bad-text" : null }, percent(row.failed_share)) },
      count("Retried", "retried", "retried"),
      count("Timed out", "timed_out"),
      count("Aborted", "aborted"),
      count("Cancelled", "cancelled"),
      count("Ended", "ended"),
      count("Recovered", "recovered", "recovered"),
    ],
    key: (row) => `${row.queue} ${row.function}`,
    sortedBy: "function",
    pages: true,
    empty: () => [el("h2", {}, "No run has been counted"), el("p", {}, "Counters begin with the first run of a tracked worker.")],
  });
  return {
    element: el("div", { class: "screen" },
      filters({ hint: "Filter: function, queue", notice: table.notice, extra: [el("span", { class: "chips" }, ...chips("window", WINDOWS)), ...taken(["queue"])] }), table.element),
    title: "Functions",
    table,
    topic: (/** @type {URLSearchParams} */ query) => {
      const wanted = new URLSearchParams(query), window = wanted.get("window") || HOUR;
      wanted.set("window", window === "all" ? "" : window);
      return `functions?${wanted}`;
    },
    /** @param {import("./stream.js").Picture} picture */
    show: (picture) => table.show(picture),
    drawer: functionDrawer,
  };
}

/**
 * One function over the window that the screen has: how its runs ended, how long they took and waited.
 * @param {string} opened its name and queue
 */
function functionDrawer(opened) {
  const [name, queue] = parsed(opened), window = asked().get("window") || HOUR;
  const told = el("div"), charts = el("div"), events = el("section", { class: "panel" });
  let drawn = "";
  return {
    element: el("div", {}, told, charts, events),
    title: cut(name, 40),
    topic: `function?${new URLSearchParams({ function: name, ...(queue && { queue }), window: window === "all" ? "24h" : window })}`,
    /** @param {import("./stream.js").Picture} picture */
    show(picture) {
      const { one = [], deploys = [] } = picture.facts, points = shown(picture.facts.points ?? []);
      fill(told, el("p", { class: "stateline" }, el("a", { href: address("jobs", { function: name }) }, "Its jobs in flight")), ...one.map(described));
      const now = JSON.stringify([points, deploys]);
      if (now !== drawn && points.length && !charts.matches(":hover, :focus-within")) {
        drawn = now;
        charts.replaceChildren(...[
          { title: "Runs ", ...ends(points, deploys) },
          { title: "Run time ", ...times(points, [[P50, "p50"], [P95, "p95"]], deploys) },
          ...(points.some((point) => point[WAIT] != null) ? [{ title: "Wait in the queue ", ...times(points, [[WAIT, "p95"]], deploys) }] : []),
        ].map(({ title, frame, axis, told }) => el("section", { class: "panel chart-panel" }, el("h2", {}, title, told), frame, axis)));
      }
      fill(events, ...eventList(picture.facts.events ?? []));
    },
  };
}

/** @param {string} opened @returns {[string, string]} */
function parsed(opened) {
  try {
    const [name, queue] = JSON.parse(opened);
    return [String(name), String(queue ?? "")];
  } catch {
    return [opened, ""];
  }
}

/** @param {any} row */
function described(row) {
  return facts([
    ["Queue", row.queue],
    ["Started", `${number(row.started)}, ${row.rate === null ? "…" : number(Math.round(row.rate * 10) / 10)} a minute`],
    ["Ended", ["succeeded", "failed", "retried", "timed_out", "aborted", "cancelled", "ended"].filter((which) => row[which])
      .map((which) => `${number(row[which])} ${which.replace("_", " ")}`).join(", ")],
    ["Recovered", row.recovered ? number(row.recovered) : null],
    ["Run time", row.run_time_p50 === undefined ? null : `p50 ${duration(row.run_time_p50)}, p95 ${duration(row.run_time_p95)}, p99 ${duration(row.run_time_p99)}, longest ${duration(row.run_time_max)}`],
    ["Wait", row.queue_wait_p50 === undefined ? null : `p50 ${duration(row.queue_wait_p50)}, p95 ${duration(row.queue_wait_p95)}, longest ${duration(row.queue_wait_max)}`],
  ]);
}
