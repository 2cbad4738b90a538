// @ts-check
// Actions: what they are about, asked before they are carried out, and told with what came of them.
import { asked, base } from "./address.js";
import { byId, el } from "./dom.js";
import { cut, number } from "./wording.js";

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

/** Tell that it failed, and why. @param {unknown} error */
export const tellFailure = (error) => tell(error instanceof Error ? error.message : String(error), true);

/** Keep a choice in this browser, where it keeps any; else it holds for this page. @param {string} name @param {string} value */
export function remember(name, value) {
  try {
    localStorage.setItem(`async-tracker ${name}`, value);
  } catch {
    // Storage is switched off.
  }
}

// What an action is about: the rows that are ticked, or else all that pass the filters of the address.

/** @typedef {{ jobs: string[] } | { filter: Record<string, string> }} Choice */
const NO_FILTERS = ["sort", "cursor", "limit", "open", "token"];

/** The filters of the address. @returns {Record<string, string>} */
const filtersNow = () => Object.fromEntries([...asked()].filter(([name, value]) => value && !NO_FILTERS.includes(name)));

/** @param {any[]} ticked @returns {Choice} */
export const choiceOf = (ticked) => (ticked.length ? { jobs: ticked.map((row) => row.id) } : { filter: filtersNow() });

/**
 * Some of the jobs that are meant, and how many more there are.
 * @param {any[]} rows each with an `id`, or a `job_id`
 * @param {number} count
 * @param {(row: any) => string} [beside]
 */
export function someOf(rows, count, beside = (row) => row.function ?? "") {
  const shown = rows.slice(0, 10);
  return [
    el("ul", {}, ...shown.map((row) => el("li", {}, el("code", {}, cut(row.id ?? row.job_id, 40)), ` ${beside(row)}`))),
    count > shown.length && el("p", {}, `and ${number(count - shown.length)} more`),
  ];
}

/** What the filters of the address are, in words: "function mail, older 60". */
export const filterWords = () => Object.entries(filtersNow()).map(([name, value]) => `${name === "q" ? "text" : name} ${value}`).join(", ");
