// @ts-check
// Orphans: jobs whose instance is dead, and that are not yet given back.
import { choiceOf, confirmed, filterWords, post, someOf, tell, tellFailure } from "./act.js";
import { el, fill } from "./dom.js";
import { opener } from "./instances.js";
import { OF_A_JOB } from "./jobs.js";
import { refresh } from "./stream.js";
import { filters, taken, Table } from "./table.js";
import { counted, duration, number, since } from "./wording.js";

/** @param {import("./main.js").Settings} settings */
export function orphans(settings) {
  const mayRecover = settings.actions.includes("recover"), bulk = el("span", { class: "bulk" });
  /** @type {any[]} */
  let ticked = [];
  const table = new Table({
    name: "Orphans",
    columns: [
      ...OF_A_JOB,
      { title: "Dead instance", sort: "instance", uses: ["instance"], cell: (row) => opener(row.instance) },
      { title: "Why it is dead", uses: ["why"], cell: (row) => el("span", { class: "why" }, row.why) },
      { title: "Orphaned for", sort: "orphaned", right: true, flip: true, uses: ["orphaned"], cell: (row) => since(row.orphaned) },
      { title: "Deaths", sort: "deaths", right: true, uses: ["deaths"], cell: (row) => number(row.deaths) },
    ],
    key: (row) => `${row.library} ${row.id}`,
    sortedBy: "started",
    pages: true,
    ticks: mayRecover,
    onTick: (rows) => {
      ticked = rows;
      offer();
    },
    one: "orphan",
    empty: () => [el("h2", {}, "No orphans"), el("p", {}, "Every job in flight is on an instance that lives. A killed worker's jobs stand here for the second or two until they are given back.")],
  });
  let total = 0;
  function offer() {
    if (!mayRecover) return;
    const what = ticked.length ? `Recover ${number(ticked.length)} ticked…` : filterWords() && total ? `Recover all ${number(total)} that match…` : "Recover now…";
    fill(bulk, el("button", { type: "button", class: "button" }, what));
  }
  bulk.addEventListener("click", (event) => event.target instanceof HTMLButtonElement && void recover(ticked, () => table.tickAll(false)));
  return {
    element: el("div", { class: "screen" },
      filters({ hint: "Filter: job, function, queue, instance", notice: table.notice, extra: [...taken(["function", "queue", "library", "instance"]), bulk] }), table.element),
    title: "Orphans",
    table,
    /** @param {import("./stream.js").Picture} picture */
    show(picture) {
      total = picture.facts.total ?? 0;
      table.show(picture);
      offer();
    },
  };
}

/** @type {Record<string, string>} */
const DONE = {
  recovered: "queued again at once", delayed: "queued again after a while", quarantined: "quarantined: too many workers died running it", taken: "left to the worker that has it by now",
  ended: "only struck off: it has ended", aborted: "aborted, as it was meant to be", left: "only struck off: nothing holds it",
};

/** How many of what. @param {Record<string, number>} actions */
const summary = (actions) => Object.entries(actions).map(([action, count]) => el("li", {}, el("b", {}, number(count)), ` ${DONE[action] ?? action}`));

/**
 * First what a sweep would do with these, then, where a person agrees, the sweep.
 * @param {any[]} ticked
 * @param {() => void} done
 */
async function recover(ticked, done) {
  const words = filterWords(), isChosen = ticked.length > 0 || words !== "", choice = isChosen ? choiceOf(ticked) : {};
  try {
    const plan = await post("recover", { dry_run: true, limit: 10, ...choice });
    if (!plan.total) {
      await confirmed("There is nothing to recover", "", [el("p", {}, isChosen ? "These are no orphans any more." : "No instance that is dead holds a job. Instances look for the dead by themselves.")]);
      return;
    }
    const agreed = await confirmed(`Recover ${counted(plan.total, "orphan")} now?`, "Recover", [
      words !== "" && !ticked.length && el("p", {}, `All that match: ${words}.`),
      el("p", {}, `This is what will be done${isChosen ? "; all other orphans stay as they are" : ""}:`), el("ul", {}, ...summary(plan.actions)),
      ...someOf(plan.recoveries, plan.total, (item) => `${item.function ?? ""} → ${item.action}${item.delay ? ` after ${duration(item.delay)}` : ""}`)]);
    if (!agreed) return;
    const { total } = await post("recover", { dry_run: false, limit: 1, ...choice, ...("filter" in choice && { most: plan.chosen }) });
    done();
    tell(`${counted(total, "orphan")} settled.`);
  } catch (error) {
    tellFailure(error);
  }
  refresh();
}
