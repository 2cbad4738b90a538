// @ts-check
// How values are written for people; and the clock, which is the server's.
import { el } from "./dom.js";

const MINUTE = 60, HOUR = 3600, DAY = 86400;
let ahead = 0;

/** Take the server's time. @param {number} now milliseconds */
export function setClock(now) {
  ahead = now - Date.now();
}

/** The server's time in milliseconds. */
export const now = () => Date.now() + ahead;

/**
 * Write a duration with the two units that matter.
 * @param {number | null | undefined} seconds
 * @returns {string}
 */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "—";
  if (seconds > 0 && seconds < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  return age(seconds);
}

/**
 * Write an age that counts: whole seconds, so that it ticks calmly.
 * @param {number} seconds
 * @returns {string}
 */
export function age(seconds) {
  if (seconds < MINUTE) return `${Math.max(Math.floor(seconds), 0)} s`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min ${Math.floor(seconds % MINUTE)} s`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)} h ${Math.floor((seconds % HOUR) / MINUTE)} min`;
  return `${Math.floor(seconds / DAY)} d ${Math.floor((seconds % DAY) / HOUR)} h`;
}

/**
 * A moment, counted from: "14 s", and what `after` says behind it; the absolute time is in its title.
 * @param {number | null | undefined} at milliseconds of the server
 * @param {string} [after]
 * @param {string} [before]
 * @param {{ ahead?: string, limit?: number }} [more] what stands before the time that is left until then; after how many seconds it is red
 * @returns {HTMLElement | string}
 */
export function since(at, after = "", before = "", more = {}) {
  if (at === null || at === undefined) return "—";
  const made = el("time", { dataset: { since: at, after, before, ...more }, title: moment(at), datetime: new Date(at).toISOString() });
  count(made);
  return made;
}

/** @param {HTMLElement} element */
function count(element) {
  const { since, before, after, ahead } = element.dataset, seconds = (now() - Number(since)) / 1000;
  const text = ahead && seconds < 0 ? ahead + age(-seconds) : before + age(seconds) + after;
  if (element.textContent !== text) element.textContent = text;
}

/** Count on, everywhere in an element. @param {Element} within */
export function countAll(within) {
  for (const element of within.querySelectorAll("[data-since]")) count(/** @type {HTMLElement} */ (element));
}

/** Write a moment in full. @param {number} at */
export const moment = (at) => `${new Date(at).toLocaleString()} (${new Date(at).toISOString()})`;

/** Write the time of day. @param {number} at */
export const clockTime = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/** Write a number. @param {number | null | undefined} value */
export const number = (value) => (value === null || value === undefined ? "—" : value.toLocaleString("en"));

/** Write a share. @param {number | null | undefined} value */
export const percent = (value) =>
  value === null || value === undefined ? "—" : value === 0 ? "0 %" : `${(value * 100).toFixed(value < 0.001 ? 2 : 1)} %`;

/** Write how many there are of something. @param {number} value @param {string} noun */
export const counted = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** Write a size. @param {number} bytes */
export const size = (bytes) => (bytes < 10000 ? `${number(bytes)} B` : `${number(Math.round(bytes / 1024))} kB`);

/**
 * An id: monospace, cut in the middle, whole in its title, copied by a click.
 * @param {string | null | undefined} text
 * @param {number} [most]
 * @returns {HTMLElement | string}
 */
export function id(text, most = 30) {
  if (text === null || text === undefined) return "—";
  return el("button", { type: "button", class: "id copy", title: `${text}\nClick to copy`, dataset: { copy: text } }, cut(text, most));
}

/** Cut a text in its middle. @param {string} text @param {number} most */
export function cut(text, most) {
  const characters = [...text];
  if (characters.length <= most) return text;
  const half = (most - 1) / 2;
  return `${characters.slice(0, Math.ceil(half)).join("")}…${characters.slice(-Math.floor(half)).join("")}`;
}

/**
 * A name: cut in its middle, whole in its title.
 * @param {string | null | undefined} text
 * @param {number} most
 * @param {string} [kind]
 */
export const name = (text, most, kind = "dim") => el("span", { class: kind, title: text ?? "" }, cut(text ?? "—", most));

/**
 * A state: its shape, its word and its colour.
 * @param {string} state
 * @returns {HTMLElement}
 */
export function badge(state) {
  /** @type {Record<string, [string, string]>} */
  const known = {
    alive: ["ok", "alive"],
    quiet: ["off", "quiet"],
    draining: ["off", "draining"],
    stalled_blocked: ["warn", "stalled"],
    stalled_silent: ["warn", "silent"],
    returning: ["warn", "returning"],
    dead: ["bad", "dead"],
    quarantined: ["bad", "quarantined"],
    unserved: ["bad", "no worker"],
    overdue: ["warn", "overdue"],
    ok: ["ok", "ok"],
    warning: ["warn", "warning"],
    problem: ["bad", "problem"],
  };
  const [kind, word] = known[state] ?? ["off", state.replaceAll("_", " ")];
  return el("span", { class: `state ${kind}` }, word);
}
