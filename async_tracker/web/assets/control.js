// @ts-check
// Orders to one worker: quiet, resume, stop; where its jobs wait, line by line; and the abort of one job.
import { confirmed, post, tell, tellFailure } from "./act.js";
import { el, fill } from "./dom.js";
import { short } from "./overview.js";
import { refresh } from "./stream.js";
import { counted, cut, duration } from "./wording.js";

/** @type {Record<string, { word: string, question: string, yes: string, done: string, grave?: boolean }>} */
const ORDERS = {
  quiet: { word: "Quiet", question: "Have this worker take no more jobs?", yes: "Quiet", done: "takes no more jobs, and runs those that it has" },
  resume: { word: "Resume", question: "Have this worker take jobs again?", yes: "Resume", done: "takes jobs again" },
  stop: { word: "Stop", question: "End this worker, as its library ends it?", yes: "Stop", done: "ends", grave: true },
};

/**
 * The buttons of an instance, and what its stacks say below them.
 * @param {string} instanceId
 * @param {import("./main.js").Settings} settings
 */
export function control(instanceId, settings) {
  const buttons = el("p", { class: "orders" }), seen = el("section", { class: "seen", "aria-live": "polite" });
  const path = `instances/${encodeURIComponent(instanceId)}`;
  /** @param {string} name */
  const order = async (name) => {
    const { question, yes, done, grave } = ORDERS[name];
    if (!(await confirmed(question, yes, [el("p", {}, el("code", {}, cut(instanceId, 60)))], { grave }))) return;
    try {
      const { answer } = await post(`${path}/${name}`);
      tell(`${cut(answer.instance_id, 40)} ${done}${answer.says ? `: ${answer.says}` : "."}`);
    } catch (error) {
      tellFailure(error);
    }
    refresh();
  };
  const look = async () => {
    fill(seen, el("p", { class: "empty" }, "The worker is asked…"));
    try {
      fill(seen, ...described((await post(`${path}/stacks`)).stacks));
    } catch (error) {
      fill(seen, el("p", { class: "banner bad" }, error instanceof Error ? error.message : String(error)));
    }
  };
  return {
    element: el("div", {}, buttons, seen),
    /** @param {string} state */
    show(state) {
      const isOut = state === "dead" || state === "draining" || state === "returning";
      const names = isOut ? [] : state === "quiet" ? ["resume", "stop"] : ["quiet", "stop"];
      fill(buttons, ...names.filter((name) => settings.actions.includes(name)).map((name) =>
        el("button", { type: "button", class: "button small", onclick: () => order(name) }, ORDERS[name].word)),
      settings.actions.includes("stacks") && state !== "dead" && el("button", { type: "button", class: "button small", onclick: look }, "Stacks"));
    },
  };
}

/**
 * The button that ends one job for good; none where the viewer may not, or its worker is gone or of no library, which cannot do it.
 * @param {{ id: string, function: string | null, library: string, state: string }} job
 * @param {import("./main.js").Settings} settings
 */
export function abortButton(job, settings) {
  if (!settings.actions.includes("abort") || job.library === "asyncio" || job.state === "dead") return null;
  const button = el("button", { type: "button", class: "button small", "aria-label": `Abort job ${job.id}`, onclick: () => abort(job, button) }, "Abort");
  return button;
}

/** @param {{ id: string, function: string | null }} job @param {HTMLElement} button */
async function abort(job, button) {
  const said = [
    el("p", {}, el("code", {}, cut(job.id, 60)), job.function && ` of ${cut(job.function, 40)}`),
    el("p", {}, "Its function is stopped where it waits; what it has for cleaning up is run. The job is over then: it does not run again, and the caller who awaits it gets an error."),
  ];
  if (!(await confirmed("End this job for good?", "Abort", said, { grave: true }))) return;
  button.blur(); // rows keep their places while the focus is in one of them, and this one is about to go
  button.setAttribute("disabled", "");
  try {
    const { abort: found } = await post(`jobs/${encodeURIComponent(job.id)}/abort`);
    const goesOn = found.outcome === "goes_on";
    tell(`${cut(found.job_id, 40)}: ${found.says}${goesOn && found.chain?.frames.length ? `, at ${placeOf(found.chain)}` : ""}.`, goesOn);
  } catch (error) {
    tellFailure(error);
  }
  button.removeAttribute("disabled");
  refresh();
}

/** @param {any} stacks @returns {import("./dom.js").Child[]} */
function described(stacks) {
  return [
    el("h3", {}, stacks.jobs.length ? "Where its jobs wait" : "No job is in flight", el("small", {}, ` seen within ${duration(stacks.took)}${stacks.is_blocked ? "; its event loop is blocked" : ""}`)),
    ...stacks.jobs.map((/** @type {any} */ group) => el("details", { open: stacks.jobs.length < 4 },
      el("summary", {}, counted(group.count, "job"), ` of ${group.function ?? "(no name)"} `, el("code", {}, cut(placeOf(group.chain), 60))),
      el("p", { class: "dim" }, group.job_ids.slice(0, 5).join(", "), group.count > 5 && ` and ${group.count - 5} more`), chain(group.chain))),
    el("h3", {}, counted(stacks.threads.length, "thread")),
    ...stacks.threads.map((/** @type {any} */ thread) => el("details", {}, el("summary", {}, thread.name), frames(thread.frames))),
    stacks.cut && el("p", { class: "empty" }, stacks.cut),
  ];
}

/** The line of the user's own code at which a chain waits, or its last one. @param {any} of */
function placeOf(of) {
  const own = of.frames.findLast((/** @type {string} */ line) => !/\/lib\/python[\d.]+\//.test(line));
  return short(own ?? of.frames.at(-1) ?? of.ends);
}

/** @param {string[]} lines */
const frames = (lines) => el("ol", { class: "stack plain" }, ...lines.map((line) => el("li", {}, line)));

/** @param {any} of @returns {HTMLElement} */
function chain(of) {
  const ends = [of.thread && `in thread ${of.thread}`, of.ends && `waits for: ${of.ends}`, of.left_out > 0 && `${of.left_out} more are not followed`].filter(Boolean);
  return el("div", { class: "chain" }, of.times > 1 && el("p", { class: "dim" }, `${of.times} times`), frames(of.frames),
    ends.length > 0 && el("p", { class: "dim" }, ends.join("; ")), ...of.branches.map(chain));
}
