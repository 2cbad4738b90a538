// @ts-check
// Quarantine: poison pills, which kept killing their workers; a person decides about them.
import { confirmed, doAll, post } from "./act.js";
import { el } from "./dom.js";
import { opener } from "./instances.js";
import { jobOpener } from "./jobs.js";
import { filters, taken, Table } from "./table.js";
import { counted, cut, number, since, size } from "./wording.js";

/** @param {import("./main.js").Settings} settings */
export function quarantine(settings) {
  const mayRetry = settings.actions.includes("retry"), mayDrop = settings.actions.includes("drop");
  const bulk = el("span", { class: "bulk" });
  const table = new Table({
    name: "Quarantined jobs",
    columns: [
      { title: "Job", sort: "id", uses: ["id"], cell: (row) => jobOpener(row.id) },
      { title: "Function", sort: "function", uses: ["function"], cell: (row) => el("span", { class: "id", title: row.function ?? "" }, cut(row.function ?? "—", 32)) },
      { title: "Queue", uses: ["queue"], cell: (row) => el("span", { class: "dim", title: row.queue ?? "" }, cut(row.queue ?? "—", 24)) },
      { title: "Deaths", sort: "deaths", right: true, uses: ["deaths"], cell: (row) => number(row.deaths) },
      { title: "Quarantined", sort: "at", right: true, flip: true, uses: ["at"], cell: (row) => since(row.at, " ago") },
      { title: "Payload", sort: "bytes", right: true, uses: ["bytes"], cell: (row) => size(row.bytes) },
      { title: "Last instance", uses: ["instance"], cell: (row) => opener(row.instance) },
      { title: "Why it died", uses: ["why"], cell: (row) => el("span", { class: "why" }, row.why) },
      ...(mayRetry || mayDrop ? [{ title: "Decide", uses: ["id"], cell: (/** @type {any} */ row) => decide([row]) }] : []),
    ],
    key: (row) => `${row.library} ${row.id}`,
    sortedBy: "at",
    pages: true,
    ticks: mayRetry || mayDrop,
    onTick: (rows) => bulk.replaceChildren(...(rows.length ? [`${number(rows.length)} ticked `, ...decide(rows).filter((button) => button !== false)] : [])),
    empty: () => (location.search ? [el("h2", {}, "No quarantined job matches"), el("p", {}, el("a", { href: "quarantine" }, "Show all"))]
      : [el("h2", {}, "Nothing is quarantined"), el("p", {}, "A job that kills its worker again and again is put here instead of killing the next one.")]),
  });

  /** @param {any[]} rows */
  function decide(rows) {
    /** @param {string} verb @param {string} word @param {string} question @param {string} done @param {boolean} grave */
    const button = (verb, word, question, done, grave) =>
      el("button", {
        type: "button", class: "button small", "aria-label": rows.length === 1 ? `${word} ${rows[0].id}` : `${word} ${counted(rows.length, "job")}`,
        onclick: async () => {
          const shown = rows.slice(0, 10).map((row) => el("li", {}, el("code", {}, cut(row.id, 40)), ` ${row.function ?? ""}`));
          const more = [el("ul", {}, ...shown), rows.length > 10 && el("p", {}, `and ${number(rows.length - 10)} more`)];
          if (!(await confirmed(question, word, more, { grave }))) return;
          table.tickAll(false);
          await doAll(rows, (row) => post(`quarantine/${encodeURIComponent(row.id)}/${verb}`), done);
        },
      }, word);
    const what = counted(rows.length, "job");
    return [
      mayRetry && button("retry", "Retry", `Let ${what} run again, with all tries?`, "queued again", false),
      mayDrop && button("drop", "Drop", `Forget ${what} for good, payload included?`, "forgotten", true),
    ];
  }

  return {
    element: el("div", { class: "screen" },
      filters({ hint: "Filter: job, function, queue, reason", notice: table.notice, extra: [...taken(["function", "queue", "library"]), bulk] }), table.element),
    title: "Quarantine",
    table,
    topic: (/** @type {URLSearchParams} */ query) => `quarantine?${query}`,
    /** @param {import("./stream.js").Picture} picture */
    show: (picture) => table.show(picture),
  };
}
