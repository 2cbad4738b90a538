// @ts-check
// Queues: what waits, for how long, and who works on it. Work without a worker is red.
import { address } from "./address.js";
import { el } from "./dom.js";
import { filters, Table } from "./table.js";
import { badge, counted, name, number, since } from "./wording.js";

/** Jobs a minute, in the last quarter of an hour. @param {number | null} value */
const figure = (value) => (value === null ? "—" : number(value < 10 ? Math.round(value * 10) / 10 : Math.round(value)));

/** The screen. */
export function queues() {
  const table = new Table({
    name: "Queues",
    columns: [
      { title: "Queue", sort: "queue", uses: ["queue"], cell: (row) => name(row.queue, 44, "id") },
      { title: "Library", sort: "library", uses: ["library"], cell: (row) => row.library },
      { title: "Depth", sort: "depth", right: true, uses: ["depth"], cell: (row) => number(row.depth) },
      { title: "Due", sort: "due", right: true, uses: ["due"], cell: (row) => number(row.due) },
      { title: "In per min", right: true, far: true, uses: ["in"], cell: (row) => figure(row.in) },
      { title: "Out per min", right: true, far: true, uses: ["out", "in"], cell: (row) => el("span", { class: row.out !== null && row.in > row.out * 1.1 + 1 ? "warn-text" : null }, figure(row.out)) },
      { title: "Oldest wait", sort: "oldest", right: true, flip: true, uses: ["oldest"], cell: (row) => (row.oldest === null ? "—" : since(row.oldest)) },
      {
        title: "Workers on it", uses: ["workers", "alive", "unserved", "queue"],
        cell: (row) => (row.unserved ? [badge("unserved"), " start a worker for this queue"]
          : [el("a", { href: address("instances", { queue: row.queue }) }, counted(row.workers, "instance")), row.alive < row.workers && `, ${row.workers - row.alive} stalled`]),
      },
      { title: "Slots busy", right: true, uses: ["busy", "slots"], cell: (row) => (row.slots ? `${number(row.busy)} / ${number(row.slots)}` : number(row.busy)) },
    ],
    key: (row) => `${row.library} ${row.queue}`,
    sortedBy: "library",
    pages: true,
    mark: (row) => (row.unserved ? "is-dead" : null),
    empty: () => [el("h2", {}, "No queue is known"), el("p", {}, "Queues are those that instances work on. Where arq or dramatiq have another Redis than the tracker, give it to this process: ",
      el("a", { href: "doctor" }, "the doctor"), " says how.")],
  });
  return {
    element: el("div", { class: "screen" }, filters({ hint: "Filter: queue", notice: table.notice }), table.element),
    title: "Queues",
    table,
    /** @param {import("./stream.js").Picture} picture */
    show: (picture) => table.show(picture),
  };
}
