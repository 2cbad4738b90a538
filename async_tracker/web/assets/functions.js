// @ts-check
// Functions: how many runs of each have started and how they ended.
import { address } from "./address.js";
import { el } from "./dom.js";
import { filters, taken, Table } from "./table.js";
import { cut, duration, number, percent } from "./wording.js";

/** @param {string} title @param {string} name @param {string} [sort] @returns {import("./table.js").Column} */
const count = (title, name, sort) => ({ title, sort, right: true, uses: [name], cell: (row) => el("span", { class: row[name] ? null : "dim" }, number(row[name])) });

/** @param {string} title @param {string} name @returns {import("./table.js").Column} */
const time = (title, name) => ({ title, right: true, uses: [name], cell: (row) => duration(row[name]) });

/** @param {import("./main.js").Settings} settings */
export function functions(settings) {
  const table = new Table({
    name: "Functions",
    columns: [
      { title: "Function", sort: "function", uses: ["function"], cell: (row) => el("a", { class: "id", href: address("jobs", { function: row.function ?? "" }), title: row.function ?? "" }, cut(row.function ?? "(no name)", 40)) },
      { title: "Queue", sort: "queue", uses: ["queue"], cell: (row) => el("span", { class: "dim", title: row.queue ?? "" }, cut(row.queue ?? "—", 24)) },
      { title: "Per min", right: true, uses: ["rate"], cell: (row) => (row.rate === null ? "…" : number(Math.round(row.rate))) },
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
      time("Mean run", "run"),
      { title: "Mean wait", right: true, uses: ["wait"], cell: (row) => (row.wait ? duration(row.wait) : "—") },
    ],
    key: (row) => `${row.queue} ${row.function}`,
    sortedBy: "function",
    pages: true,
    empty: () => [el("h2", {}, "No run has been counted"), el("p", {}, "Counters begin with the first run of a tracked worker.")],
  });
  return {
    element: el("div", { class: "screen" },
      filters({ hint: "Filter: function, queue", notice: table.notice, extra: [...taken(["queue"]), el("span", { class: "dim" }, "counted since the namespace began")] }), table.element),
    title: "Functions",
    table,
    settings,
    topic: (/** @type {URLSearchParams} */ query) => `functions?${query}`,
    /** @param {import("./stream.js").Picture} picture */
    show: (picture) => table.show(picture),
  };
}
