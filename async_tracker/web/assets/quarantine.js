// @ts-check
// Quarantine: poison pills, which kept killing their workers; a person decides about them.
import { choiceOf, confirmed, filterWords, post, someOf, tell, tellFailure } from "./act.js";
import { el } from "./dom.js";
import { opener } from "./instances.js";
import { OF_A_JOB } from "./jobs.js";
import { refresh } from "./stream.js";
import { filters, taken, Table } from "./table.js";
import { counted, number, since, size } from "./wording.js";

/** @param {import("./main.js").Settings} settings */
export function quarantine(settings) {
  const mayRetry = settings.actions.includes("retry"), mayDrop = settings.actions.includes("drop");
  const bulk = el("span", { class: "bulk" });
  let total = 0, offered = "";
  /** @type {any[]} */
  let ticked = [];
  const table = new Table({
    name: "Quarantined jobs",
    columns: [
      ...OF_A_JOB.slice(0, 3),
      { title: "Deaths", sort: "deaths", right: true, uses: ["deaths"], cell: (row) => number(row.deaths) },
      { title: "Quarantined", sort: "at", right: true, flip: true, uses: ["at"], cell: (row) => since(row.at, " ago") },
      { title: "Payload", sort: "bytes", right: true, uses: ["bytes"], cell: (row) => size(row.bytes) },
      { title: "Last instance", uses: ["instance"], cell: (row) => opener(row.instance) },
      { title: "Why it died", uses: ["why"], cell: (row) => el("span", { class: "why" }, row.why) },
      ...(mayRetry || mayDrop ? [{ title: "Decide", uses: ["id"], cell: (/** @type {any} */ row) => decide([row], 1) }] : []),
    ],
    key: (row) => `${row.library} ${row.id}`,
    sortedBy: "at",
    pages: true,
    ticks: mayRetry || mayDrop,
    onTick: (rows) => {
      ticked = rows;
      offer(rows);
    },
    one: "quarantined job",
    empty: () => [el("h2", {}, "Nothing is quarantined"), el("p", {}, "A job that kills its worker again and again is put here instead of killing the next one.")],
  });

  /**
   * The buttons about one row, the ticked ones, or, without any, all that match.
   * @param {any[]} rows
   * @param {number} count
   * @param {(word: string) => string} [words] what stands on a button
   */
  function decide(rows, count, words = (word) => word) {
    const isOne = rows.length === 1, what = counted(count, "job");
    /** @param {string} verb @param {string} word @param {string} question @param {string} done @param {boolean} grave */
    const button = (verb, word, question, done, grave) =>
      el("button", {
        type: "button", class: "button small", "aria-label": isOne ? `${word} ${rows[0].id}` : `${word} ${what}`,
        onclick: async () => {
          const more = rows.length ? someOf(rows, count) : [el("p", {}, filterWords() ? `All that match: ${filterWords()}.` : "All that there are.")];
          if (!(await confirmed(question, word, more, { grave }))) return;
          try {
            const answer = await post(`quarantine/${verb}`, { ...choiceOf(rows), ...(!rows.length && { most: count }) });
            const { stayed } = answer, changed = answer[verb === "retry" ? "retried" : "dropped"].length;
            table.tickAll(false);
            if (changed) tell(`${counted(changed, "job")} ${changed === 1 ? "is" : "are"} ${done}.`);
            if (stayed.length) tell(`${number(stayed.length)} not: ${stayed[0].why}`, true);
          } catch (error) {
            tellFailure(error);
          }
          refresh();
        },
      }, words(word));
    return [
      mayRetry && button("retry", "Retry", `Let ${what} run again, with all tries?`, "queued again", false),
      mayDrop && button("drop", "Drop", `Forget ${what} for good, payload included?`, "forgotten", true),
    ];
  }

  /** @param {any[]} rows those that are ticked */
  function offer(rows) {
    const key = JSON.stringify([rows.map((row) => row.id), total, filterWords()]);
    if (key === offered) return;
    offered = key;
    bulk.replaceChildren(...(rows.length ? [`${number(rows.length)} ticked `, ...decide(rows, rows.length)]
      : total > 1 ? decide([], total, (word) => `${word} all ${number(total)}${filterWords() ? " that match" : ""}…`) : []).filter((child) => child !== false));
  }

  return {
    element: el("div", { class: "screen" },
      filters({ hint: "Filter: job, function, queue, reason", notice: table.notice, extra: [...taken(["function", "queue", "library"]), bulk] }), table.element),
    title: "Quarantine",
    table,
    /** @param {import("./stream.js").Picture} picture */
    show(picture) {
      total = picture.facts.total ?? 0;
      table.show(picture);
      offer(ticked);
    },
  };
}
