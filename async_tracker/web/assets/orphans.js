// @ts-check
// Orphans: jobs whose instance is dead, and that are not yet given back.
import { confirmed, post, tell } from "./act.js";
import { el } from "./dom.js";
import { opener } from "./instances.js";
import { jobOpener } from "./jobs.js";
import { refresh } from "./stream.js";
import { filters, taken, Table } from "./table.js";
import { counted, cut, duration, number, since } from "./wording.js";

/** @param {import("./main.js").Settings} settings */
export function orphans(settings) {
  const table = new Table({
    name: "Orphans",
    columns: [
      { title: "Job", sort: "id", uses: ["id"], cell: (row) => jobOpener(row.id) },
      { title: "Function", sort: "function", uses: ["function"], cell: (row) => el("span", { class: "id", title: row.function ?? "" }, cut(row.function ?? "—", 32)) },
      { title: "Queue", uses: ["queue"], cell: (row) => el("span", { class: "dim", title: row.queue ?? "" }, cut(row.queue ?? "—", 24)) },
      { title: "Try", right: true, uses: ["try"], cell: (row) => number(row.try) },
      { title: "Dead instance", sort: "instance", uses: ["instance"], cell: (row) => opener(row.instance) },
      { title: "Why it is dead", uses: ["why"], cell: (row) => el("span", { class: "why" }, row.why) },
      { title: "Orphaned for", sort: "orphaned", right: true, flip: true, uses: ["orphaned"], cell: (row) => since(row.orphaned) },
      { title: "Deaths", sort: "deaths", right: true, uses: ["deaths"], cell: (row) => number(row.deaths) },
    ],
    key: (row) => `${row.library} ${row.id}`,
    sortedBy: "started",
    pages: true,
    empty: () => (location.search ? [el("h2", {}, "No orphan matches"), el("p", {}, el("a", { href: "orphans" }, "Show all"))]
      : [el("h2", {}, "No orphans"), el("p", {}, "Every job in flight is on an instance that lives. A killed worker's jobs stand here for the second or two until they are given back.")]),
  });
  const buttons = settings.actions.includes("recover") ? [el("button", { type: "button", class: "button", onclick: recover }, "Recover now…")] : [];
  return {
    element: el("div", { class: "screen" },
      filters({ hint: "Filter: job, function, queue, instance", notice: table.notice, extra: [...taken(["function", "queue", "library", "instance"]), ...buttons] }), table.element),
    title: "Orphans",
    table,
    topic: (/** @type {URLSearchParams} */ query) => `orphans?${query}`,
    /** @param {import("./stream.js").Picture} picture */
    show: (picture) => table.show(picture),
  };
}

/** First what a sweep would do, then, where a person agrees, the sweep. */
async function recover() {
  try {
    const { recoveries } = await post("recover", { dry_run: true });
    const shown = recoveries.slice(0, 12).map((/** @type {any} */ item) =>
      el("li", {}, el("code", {}, cut(item.job_id, 36)), ` ${item.function ?? ""} → ${item.action}${item.delay ? ` after ${duration(item.delay)}` : ""}`));
    const rest = recoveries.length > shown.length && el("p", {}, `and ${number(recoveries.length - shown.length)} more`);
    if (!recoveries.length) {
      await confirmed("There is nothing to recover", "", [el("p", {}, "No instance that is dead holds a job. Instances look for the dead by themselves.")]);
      return;
    }
    if (!(await confirmed(`Recover ${counted(recoveries.length, "orphan")} now?`, "Recover", [el("p", {}, "This is what would be done:"), el("ul", {}, ...shown), rest]))) return;
    const done = await post("recover", { dry_run: false });
    tell(`${counted(done.recoveries.length, "orphan")} settled.`);
  } catch (error) {
    tell(error instanceof Error ? error.message : String(error), true);
  }
  refresh();
}
