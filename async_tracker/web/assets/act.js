// @ts-check
// Actions: asked about first, carried out one after the other, and told with what came of them.
import { base } from "./address.js";
import { byId, el } from "./dom.js";
import { refresh } from "./stream.js";

/**
 * Ask the server to do something. Rejects with what it says.
 * @param {string} path
 * @param {any} [body]
 * @returns {Promise<any>}
 */
export async function post(path, body) {
  const options = body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await fetch(new URL(`api/v1/${path}`, base), { method: "POST", credentials: "same-origin", cache: "no-store", ...options });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error?.message ?? `the server answers with status ${response.status}`);
  return answer;
}

/**
 * Ask a person. Resolves to whether the answer is yes.
 * @param {string} question
 * @param {string} yes the word on the button
 * @param {import("./dom.js").Child[]} [more]
 * @param {{ grave?: boolean }} [options]
 * @returns {Promise<boolean>}
 */
export function confirmed(question, yes, more = [], { grave = false } = {}) {
  const dialog = /** @type {HTMLDialogElement} */ (el("dialog", { "aria-labelledby": "question" },
    el("form", { method: "dialog" },
      el("h2", { id: "question" }, question),
      el("div", { class: "more" }, ...more),
      el("div", { class: "buttons" },
        el("button", { value: "", class: "button" }, "Cancel"),
        yes && el("button", { value: "yes", class: `button ${grave ? "grave" : "primary"}` }, yes)))));
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
  });
}

/** Tell what came of it, for some seconds. @param {string} text @param {boolean} [isBad] */
export function tell(text, isBad = false) {
  const toast = el("div", { class: `toast${isBad ? " bad" : ""}`, role: "status" }, text);
  byId("top").after(toast);
  setTimeout(() => toast.remove(), isBad ? 12000 : 5000);
}

/**
 * Do the same with each of several things, and tell how many it was done with.
 * @template T
 * @param {T[]} things
 * @param {(thing: T) => Promise<any>} action
 * @param {string} done what was done, as in "3 jobs are queued again"
 */
export async function doAll(things, action, done) {
  /** @type {string[]} */
  const failures = [];
  for (const thing of things) {
    try {
      await action(thing);
    } catch (error) {
      failures.push(error instanceof Error ? error.message : String(error));
    }
  }
  const count = things.length - failures.length;
  if (count) tell(`${count} ${count === 1 ? "job is" : "jobs are"} ${done}.`);
  if (failures.length) tell(`${failures.length} not: ${[...new Set(failures)].slice(0, 3).join("; ")}`, true);
  refresh();
}
