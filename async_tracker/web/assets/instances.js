// @ts-check
// Instances: the worker processes, how each is, and why. One of them opened: everything that is known of it.
import { opened } from "./address.js";
import { control } from "./control.js";
import { el, facts, fill } from "./dom.js";
import { eventList } from "./events.js";
import { jobColumns } from "./jobs.js";
import { short } from "./overview.js";
import { chips, filters, taken, Table } from "./table.js";
import { badge, counted, cut, duration, id, number, since } from "./wording.js";

const STATES = ["alive", "quiet", "draining", "stalled", "returning", "dead"];

/** @param {import("./main.js").Settings} settings */
export function instances(settings) {
  const states = el("span", { class: "chips" });
  const table = new Table({
    name: "Instances",
    columns: [
      { title: "Instance", sort: "instance", uses: ["id", "label", "tags"], cell: (row) => [opener(row.id), named(row)] },
      { title: "State", sort: "state", uses: ["state"], cell: (row) => badge(row.state) },
      { title: "Library", sort: "library", far: true, uses: ["library"], cell: (row) => row.library },
      { title: "Queues", far: true, uses: ["queues"], cell: (row) => el("span", { class: "dim", title: row.queues.join(", ") }, cut(row.queues.join(", ") || "—", 28)) },
      { title: "Busy", sort: "busy", uses: ["busy", "slots", "state"], cell: (row) => busy(row) },
      { title: "Ended", sort: "ended", right: true, far: true, uses: ["ended"], cell: (row) => number(row.ended) },
      { title: "Failed", sort: "failed", right: true, far: true, uses: ["failed"], cell: (row) => el("span", { class: row.failed ? null : "dim" }, number(row.failed)) },
      { title: "Memory", sort: "memory", right: true, uses: ["memory"], cell: (row) => (row.memory === null ? "—" : `${Math.round(row.memory)} MB`) },
      { title: "Loop lag", sort: "lag", right: true, uses: ["lag"], cell: (row) => duration(row.lag) },
      { title: "Up", sort: "up", right: true, flip: true, uses: ["up", "state"], cell: (row) => (row.state === "dead" ? "—" : since(row.up)) },
      { title: "Heartbeat", sort: "beat", flip: true, uses: ["beat"], cell: (row) => beat(row, settings.ttl) },
      { title: "Why", uses: ["why", "state", "blocked", "line", "died", "dropped"], cell: why },
    ],
    key: (row) => row.id,
    sortedBy: "up",
    pages: true,
    mark: (row) => (row.state === "dead" ? "is-dead" : row.state.startsWith("stalled") ? "is-stalled" : null),
    empty: () => [el("h2", {}, "No instance is registered"), el("p", {}, "Write ", el("code", {}, "@tracker.install"), " above WorkerSettings and start a worker, with the namespace ",
      el("code", {}, settings.namespace), ". Where there should be some: ", el("a", { href: "doctor" }, "ask the doctor"), ".")],
  });
  return {
    element: el("div", { class: "screen" },
      filters({ hint: "Filter: id, label, host, tag, queue, function", notice: table.notice, extra: [states, ...taken(["library", "queue"])] }), table.element),
    title: "Instances",
    table,
    /** @param {import("./stream.js").Picture} picture */
    show(picture) {
      const counts = picture.facts.facets?.state ?? {};
      const stalled = (counts.stalled_blocked ?? 0) + (counts.stalled_silent ?? 0);
      /** @type {[string, string, number][]} */
      const choices = STATES.map((state) => [state, state, state === "stalled" ? stalled : counts[state] ?? 0]);
      fill(states, ...chips("state", [["", "all", picture.facts.every ?? 0], ...choices.filter(([state, , count]) => count || state === "alive")]));
      table.show(picture);
    },
    drawer: (/** @type {string} */ instanceId) => instanceDrawer(instanceId, settings),
  };
}

/** @param {string} instanceId @param {number} [most] */
export const opener = (instanceId, most = 30) => el("a", { class: "id", href: opened("instances", instanceId), title: instanceId }, cut(instanceId, most));

/** @param {any} row */
function named(row) {
  const text = [row.label, ...row.tags].filter(Boolean).join(" · ");
  return text && el("span", { class: "sub" }, cut(text, 44));
}

/** @param {any} row */
function busy(row) {
  const then = row.state.startsWith("stalled") && !row.stack && el("span", { class: "sub" }, "when it last beat");
  if (!row.slots) return [number(row.busy), then];
  const fillTo = el("i");
  fillTo.style.width = `${Math.min((row.busy / row.slots) * 100, 100)}%`;
  return [el("span", { class: `meter${row.busy >= row.slots ? " full" : ""}` }, fillTo), `${number(row.busy)} / ${number(row.slots)}`, then];
}

/** @param {any} row @param {number} ttl */
function beat(row, ttl) {
  const bar = el("i", { dataset: { beat: row.beat, ttl } });
  return row.state === "dead" ? since(row.beat, " ago") : [el("span", { class: "meter beat" }, bar), since(row.beat)];
}

/** @param {any} row */
function why(row) {
  const parts = [];
  if (row.line) parts.push("blocked", since(row.blocked ?? row.beat, "", " for "), " at ", el("code", { title: row.line }, cut(short(row.line), 48)));
  else if (row.why) parts.push(row.why, row.died ? since(row.died, "", ", since ") : null);
  if (row.dropped) parts.push(parts.length ? "; " : "", `${counted(row.dropped, "write")} dropped`);
  return el("span", { class: "why" }, ...parts);
}

/**
 * A frame is told by the end of its path, which is where one looks; the whole is in its title.
 * @param {string} frame
 */
const ending = (frame) => frame.replace(/^.*\/(?:site|dist)-packages\//, "").replace(/^.*\/lib\/python[\d.]+\//, "").replace(/^.*\/((?:[^/]+\/){2}[^/]+:\d+)/, "…/$1");

/**
 * Everything of one instance.
 * @param {string} instanceId
 * @param {import("./main.js").Settings} settings
 */
export function instanceDrawer(instanceId, settings) {
  const told = el("div"), heading = el("h3"), orders = control(instanceId, settings), table = new Table({
    name: "Jobs of this instance",
    columns: jobColumns(settings).filter((column) => !["Instance", "Queue", "Try", "Waited", "Deadline"].includes(column.title)),
    key: (row) => row.id,
    empty: () => [el("p", {}, "No job is in flight on it.")],
  });
  const events = el("section", { class: "panel" });
  return {
    element: el("div", {}, told, orders.element, heading, table.element, events),
    title: cut(instanceId, 40),
    topic: `instance?${new URLSearchParams({ id: instanceId })}`,
    /** @param {import("./stream.js").Picture} picture */
    show(picture) {
      const one = picture.facts.one;
      table.element.hidden = heading.hidden = !one;
      heading.textContent = `${counted(picture.facts.total ?? 0, "job")} in flight`;
      fill(told, ...(one ? described(one) : [el("p", { class: "empty" }, picture.facts.unread ? "Its record cannot be read: another version of async-tracker, or another program, wrote it. What it does is not known here."
        : "No instance of this id is registered: it has ended, or is dead and settled. What happened to it stands below.")]));
      orders.show(one?.state ?? "dead");
      if (one) table.show(picture);
      fill(events, ...eventList(picture.facts.events));
    },
  };
}

/** @param {any} one */
function described(one) {
  return [
    el("p", { class: "stateline" }, badge(one.state), " ", why(one)),
    one.stack.length > 0 && el("ol", { class: "stack" }, ...one.stack.map((/** @type {string} */ frame) =>
      el("li", { class: one.line && one.line.startsWith(frame) ? "on" : null, title: frame }, ending(frame)))),
    facts([
      ["Id", id(one.id, 60)],
      ["Label", one.label],
      ["Host", `${one.host}, pid ${one.pid}`],
      ["Library", `${one.library}${one.queues.length ? ` on ${one.queues.join(", ")}` : ""}`],
      ["Busy", busy(one)],
      ["Jobs", `${number(one.started)} started, ${number(one.ended)} ended, ${number(one.failed)} of them failed`],
      ["Started", since(one.up, " ago")],
      ["Heartbeat", since(one.beat, " ago")],
      ["Memory", one.memory === null ? null : `${one.memory} MB`],
      ["Loop lag", duration(one.lag)],
      ["Tags", one.tags.join(", ")],
      ["Redis", one.redis],
      ["Connections", one.connections.join(", ")],
      ["Deploy", one.version],
      ["Versions", Object.entries(one.versions).map(([name, version]) => `${name} ${version}`).join(", ")],
      ["Functions", one.functions.join(", ")],
    ]),
  ];
}
