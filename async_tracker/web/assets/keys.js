// @ts-check
// The keyboard: single keys, which can be switched off, which are off while a field has the focus, and which nothing needs.
import { confirmed, remember } from "./act.js";
import { address, go } from "./address.js";
import { el, facts } from "./dom.js";

const GO = { o: "overview", i: "instances", j: "jobs", r: "orphans", q: "quarantine", f: "functions", u: "queues", e: "events", d: "doctor" };
/** @type {[string, string][]} */
const MEANINGS = [
  ["/", "go to the filter"], ["j, k", "next row, row before"], ["Enter", "open the row"], ["x", "tick the row"], ["p", "pause and go on"], ["t", "change the theme"],
  ["Esc", "close what is open"], ...Object.entries(GO).map(([key, screen]) => /** @type {[string, string]} */ ([`g ${key}`, `go to ${screen}`])), ["?", "show this"],
];

let isOn = true;
try {
  isOn = localStorage.getItem("async-tracker keys") !== "off";
} catch {
  // Storage is switched off in this browser: keys are on until they are switched off again.
}

/** Show what the keys do, and let them be switched off. */
export async function showKeys() {
  const box = /** @type {HTMLInputElement} */ (el("input", {
    type: "checkbox", checked: isOn,
    onchange: () => {
      isOn = box.checked;
      remember("keys", isOn ? "on" : "off");
    },
  }));
  await confirmed("Keys", "", [facts(MEANINGS.map(([keys, meaning]) => [el("kbd", {}, keys), meaning])), el("label", {}, box, " single keys are switched on")]);
}

/** @param {{ table: () => import("./table.js").Table | undefined, pause: () => void, theme: () => void, close: () => boolean }} what */
export function listen(what) {
  let went = 0;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const target = /** @type {HTMLElement} */ (event.target);
    const isTyping = target.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
    if (event.key === "Escape") {
      if (isTyping) target.blur();
      else what.close();
      return;
    }
    if (isTyping || !isOn) return;
    const isAfterG = Date.now() - went < 1500;
    went = 0;
    const screen = isAfterG ? GO[/** @type {keyof typeof GO} */ (event.key)] : undefined;
    /** @type {Record<string, () => void>} */
    const deeds = {
      "/": () => document.querySelector("input")?.focus(),
      j: () => what.table()?.step(1),
      k: () => what.table()?.step(-1),
      x: () => what.table()?.tickFocused(),
      p: what.pause,
      t: what.theme,
      g: () => (went = Date.now()),
      "?": () => void showKeys(),
    };
    const deed = screen ? () => go(new URL(address(screen), document.baseURI).href) : deeds[event.key];
    if (!deed) return;
    event.preventDefault();
    deed();
  });
}
