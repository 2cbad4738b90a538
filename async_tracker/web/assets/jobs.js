// @ts-check
// Jobs: the runs in flight. One of them opened: its record, and what happened to it.
import { address, opened } from "./address.js";
import { abortButton } from "./control.js";
import { el, facts, fill } from "./dom.js";
import { eventList } from "./events.js";
import { opener } from "./instances.js";
import { chips, filters, taken, Table } from "./table.js";
import { badge, counted, cut, duration, id, name, number, since } from "./wording.js";

/** @type {import("./table.js").Column[]} which job it is, wherever jobs are listed */
export const OF_A_JOB = [
  { title: "Job", sort: "id", uses: ["id", "superseded"], cell: (row) => [jobOpener(row.id), row.superseded > 0 && el("span", { class: "sub" }, `${counted(row.superseded, "older run")} still alive`)] },
  { title: "Function", sort: "function", uses: ["function"], cell: (row) => name(row.function, 32, "id") },
  { title: "Queue", sort: "queue", far: true, uses: ["queue"], cell: (row) => name(row.queue, 24) },
  { title: "Try", sort: "try", right: true, far: true, uses: ["try"], cell: (row) => number(row.try) },
];

/** @param {import("./main.js").Settings} settings @returns {import("./table.js").Column[]} */
export function jobColumns(settings) {
  return [
    ...OF_A_JOB,
    { title: "Waited", right: true, far: true, uses: ["enqueued", "started"], cell: (row) => (row.enqueued === null ? "—" : duration(Math.max(row.started - row.enqueued, 0) / 1000)) },
    { title: "Running for", sort: "started", right: true, flip: true, uses: ["started", "timeout", "usual"], cell: running },
    { title: "Deadline", sort: "deadline", right: true, uses: ["started", "timeout"], cell: deadline },
    { title: "Progress", sort: "progress", uses: ["progress", "message"], cell: progress },
    { title: "Instance", sort: "instance", uses: ["instance", "state"], cell: (row) => [opener(row.instance, 26), row.state !== "alive" && [" ", badge(row.state)]].flat() },
    ...(settings.actions.includes("abort") ? [{ title: "Action", uses: ["library", "state", "function"], cell: (/** @type {any} */ row) => abortButton(row, settings) }] : []),
  ];
}

/** @param {any} row */
function running(row) {
  const made = since(row.started);
  if (made instanceof HTMLElement && row.timeout !== null) made.dataset.limit = row.timeout;
  if (made instanceof HTMLElement && row.usual) {
    made.dataset.usual = row.usual;
    made.title += ` · 95 % of its runs of the last hour took at most ${duration(row.usual)}`;
  }
  return made;
}

/**
 * When its timeout is over: counted towards, and from there on in red.
 * @param {any} row
 */
const deadline = (row) => (row.timeout === null ? "—" : since(row.started + row.timeout * 1000, " ago", "", { ahead: "in ", limit: 0 }));

/** @param {any} row */
function progress(row) {
  if (row.progress === null && !row.message) return "";
  const done = el("i");
  done.style.width = `${Math.min(Math.max(row.progress ?? 0, 0), 1) * 100}%`;
  return [row.progress !== null && el("span", { class: "meter" }, done), row.progress !== null && `${Math.round(row.progress * 100)} % `,
    row.message && el("span", { class: "dim", title: row.message }, cut(row.message, 40))];
}

/** @param {string} jobId @param {number} [most] */
export const jobOpener = (jobId, most = 30) => el("a", { class: "id", href: opened("jobs", jobId), title: jobId }, cut(jobId, most));

/** @param {import("./main.js").Settings} settings */
export function jobs(settings) {
  const table = new Table({
    name: "Jobs in flight",
    columns: jobColumns(settings),
    key: (row) => `${row.library} ${row.id}`,
    sortedBy: "started",
    pages: true,
    one: "job in flight",
    empty: () => [el("h2", {}, "No job is in flight"), el("p", {}, "Jobs that end within a moment are counted and not listed: see ", el("a", { href: "functions" }, "Functions"), ". What waits: ", el("a", { href: "queues" }, "Queues"), ".")],
  });
  const older = chips("older", [["", "any age", null], ["10", "over 10 s", null], ["60", "over 1 min", null], ["600", "over 10 min", null]]);
  return {
    element: el("div", { class: "screen" },
      filters({ hint: "Filter: job, function, queue, instance, message", notice: table.notice,
        extra: [el("span", { class: "chips" }, ...older), ...chips("overdue", [["1", "past their timeout", null]]), ...taken(["function", "queue", "library", "instance"])] }), table.element),
    title: "Jobs",
    table,
    /** @param {import("./stream.js").Picture} picture */
    show: (picture) => table.show(picture),
    drawer: (/** @type {string} */ jobId) => jobDrawer(jobId, settings),
  };
}

/**
 * Everything of one job.
 * @param {string} jobId
 * @param {import("./main.js").Settings} settings
 */
export function jobDrawer(jobId, settings) {
  const told = el("div"), events = el("section", { class: "panel" });
  return {
    element: el("div", {}, told, events),
    title: cut(jobId, 40),
    topic: `job?${new URLSearchParams({ id: jobId })}`,
    /** @param {import("./stream.js").Picture} picture */
    show(picture) {
      const { orphaned = [], pills = [], missing, unread } = picture.facts;
      fill(told,
        ...picture.order.map((key) => described(picture.rows.get(key))),
        ...picture.order.map((key) => abortButton(picture.rows.get(key), settings)).filter(Boolean).map((button) => el("p", { class: "orders" }, button)),
        ...orphaned.map((/** @type {any} */ orphan) => el("p", { class: "banner bad" }, "An orphan", since(orphan.orphaned, "", " since "), `: its instance is dead (${orphan.why}).`)),
        ...pills.map((/** @type {any} */ pill) => el("p", { class: "banner bad" }, el("span", {}, `In quarantine: ${counted(pill.deaths, "worker")} died running it.`), el("a", { href: address("quarantine", { q: jobId }) }, "Decide"))),
        unread && el("p", { class: "banner warn" }, "Its record cannot be read: another version of async-tracker, or another program, wrote it."),
        missing && !unread && !orphaned.length && !pills.length && el("p", { class: "empty" }, "It is not in flight: it has ended, waits in its queue, or was never here. What happened to it stands below."));
      fill(events, ...eventList(picture.facts.events));
    },
  };
}

/** @param {any} job */
function described(job) {
  return facts([
    ["Id", id(job.id, 60)],
    ["Function", job.function],
    ["Library", `${job.library}${job.queue ? ` on ${job.queue}` : ""}`],
    ["Instance", opener(job.instance, 48)],
    ["Try", number(job.try)],
    ["Enqueued", job.enqueued === null ? null : since(job.enqueued, " ago")],
    ["Running for", running(job)],
    ["Timeout", job.timeout === null ? null : [`${duration(job.timeout)}: `, deadline(job)]],
    ["Progress", progress(job)],
    ["Arguments", job.args === null ? null : el("code", { class: "args" }, job.args)],
    ["Run", id(job.run, 40)],
    ["Older runs", job.superseded ? `${number(job.superseded)} still alive` : null],
  ]);
}
