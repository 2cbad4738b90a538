// @ts-check
// Events: what happened, the newest first.
import { ask, asked } from "./address.js";
import { el, fill } from "./dom.js";
import { opener } from "./instances.js";
import { jobOpener } from "./jobs.js";
import { chips, filters, taken, Table } from "./table.js";
import { now, since } from "./wording.js";

/** What else an event says. @param {any} row */
function details(row) {
  const facts = [["function", row.function], ["queue", row.queue], ...Object.entries(row.details)];
  return el("span", { class: "why" }, facts.filter(([, value]) => value !== null && value !== undefined).map(([name, value]) =>
    `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`).join(" · "));
}

/** @type {import("./table.js").Column[]} */
const columns = [
  { title: "When", uses: ["at"], cell: (row) => since(row.at, " ago") },
  { title: "What", uses: ["type"], cell: (row) => el("span", { class: `event ${row.type}` }, row.type.replaceAll("_", " ")) },
  { title: "Job", uses: ["job"], cell: (row) => row.job !== null && jobOpener(row.job) },
  { title: "Instance", uses: ["instance"], cell: (row) => row.instance !== null && opener(row.instance) },
  { title: "Details", uses: ["details", "function", "queue"], cell: details },
];

/** The screen. */
export function events() {
  const types = el("span", { class: "chips" });
  const table = new Table({
    name: "Events",
    columns,
    key: (row) => row.id,
    pages: true,
    stacks: true,
    one: "event",
    empty: () => [el("h2", {}, "Nothing has happened"), el("p", {}, "Deaths, orphans, recoveries, quarantines and what people do stand here. Jobs that merely start and end are counted under ", el("a", { href: "functions" }, "Functions"), ".")],
  });
  const from = /** @type {HTMLInputElement} */ (el("input", {
    type: "datetime-local", "aria-label": "From", title: "Only events from then on", value: local(asked().get("since")),
    onchange: () => ask({ since: from.value ? String(new Date(from.value).getTime()) : null, cursor: null }),
  }));
  return {
    element: el("div", { class: "screen" },
      filters({ hint: "Filter: job, instance, function, queue", notice: table.notice, extra: [types, el("label", { class: "from" }, "from ", from), ...taken(["job", "instance"])] }), table.element),
    title: "Events",
    table,
    /** @param {import("./stream.js").Picture} picture */
    show(picture) {
      /** @type {[string, number][]} */
      const counts = Object.entries(picture.facts.facets?.type ?? {});
      fill(types, ...chips("type", [["", "all", picture.facts.every ?? 0], ...counts.map(([type, count]) => /** @type {[string, string, number]} */ ([type, type.replaceAll("_", " "), count]))]));
      table.show(picture);
    },
  };
}

/** A moment as the field for it takes it. @param {string | null} since */
function local(since) {
  if (!since) return "";
  const at = /^\d+$/.test(since) ? Number(since) : Date.parse(since);
  return Number.isNaN(at) ? "" : new Date(at - new Date(now()).getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}

/**
 * The events of one thing.
 * @param {any[]} [rows]
 */
export function eventList(rows = []) {
  if (!rows.length) return [el("h2", {}, "Events"), el("p", { class: "empty" }, "None is known.")];
  return [el("h2", {}, "Events"), el("ul", { class: "list events" }, ...rows.map((row) =>
    el("li", {}, el("span", { class: `event ${row.type}` }, row.type.replaceAll("_", " ")), el("span", { class: "what" }, details(row)), el("span", { class: "beside" }, since(row.at, " ago")))))];
}
