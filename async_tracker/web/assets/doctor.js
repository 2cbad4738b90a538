// @ts-check
// Doctor: what is there, what is missing, and how to mend it.
import { el, fill } from "./dom.js";
import { Table } from "./table.js";
import { badge, counted, since } from "./wording.js";

/** The screen. */
export function doctor() {
  const summary = el("p", { class: "dim" });
  const table = new Table({
    name: "Findings",
    columns: [
      { title: "Subject", uses: ["subject"], cell: (row) => row.subject },
      { title: "Status", uses: ["status"], cell: (row) => badge(row.status) },
      { title: "Finding", uses: ["says"], cell: (row) => el("span", { class: "why wide" }, row.says) },
      { title: "What to do", uses: ["remedy"], cell: (row) => row.remedy && el("span", { class: "why wide" }, row.remedy) },
    ],
    stacks: true,
    key: (row) => `${row.subject} ${row.says}`,
    mark: (row) => (row.status === "problem" ? "is-dead" : row.status === "warning" ? "is-stalled" : null),
    empty: () => [el("p", {}, "Looking…")],
  });
  return {
    element: el("div", { class: "screen" }, summary, table.element),
    title: "Doctor",
    table,
    topic: () => "doctor",
    /** @param {import("./stream.js").Picture} picture */
    show(picture) {
      const rows = picture.order.map((key) => picture.rows.get(key));
      /** @param {string} status */
      const count = (status) => rows.filter((row) => row.status === status).length;
      fill(summary, `${counted(count("problem"), "problem")}, ${counted(count("warning"), "warning")}; looked at`, since(picture.facts.at, " ago", " "), ", every half a minute while this is open");
      table.show(picture);
    },
  };
}
