// @ts-check
// Charts, made by hand of SVG.
import { el, svg } from "./dom.js";
import { clockTime, number } from "./wording.js";

/**
 * How many have started, succeeded and failed in each minute: a column each; arrows move through them, a pointer does too.
 * @param {number[][]} minutes when it began, then started, succeeded, failed, recovered
 */
export function minutes(minutes) {
  const last = minutes.at(-1)?.[0] ?? 0, first = minutes[0]?.[0] ?? 0, height = 100;
  const columns = last - first < 15 * 60000 ? 15 : last - first < 30 * 60000 ? 30 : 60;
  const most = Math.max(...minutes.map(([, started, succeeded, failed]) => Math.max(started, succeeded + failed)), 1);
  const top = nice(most);
  const told = el("output", { class: "told" });
  /** @type {SVGElement[]} */
  const spots = [];
  let at = minutes.length - 1;
  const show = (/** @type {number} */ place) => {
    at = Math.min(Math.max(place, 0), minutes.length - 1);
    spots.forEach((spot, other) => spot.classList.toggle("on", other === at));
    const [begun, started, succeeded, failed, recovered] = minutes[at];
    told.textContent = `${clockTime(begun)} · ${number(started)} started, ${number(succeeded)} succeeded, ${number(failed)} failed`
      + (recovered ? `, ${number(recovered)} recovered` : "");
  };
  const drawing = svg("svg", { viewBox: `0 0 ${columns * 10} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "chart" });
  for (const line of [0, 0.5]) {
    const y = line * height + 0.5;
    drawing.append(svg("line", { x1: 0, x2: columns * 10, y1: y, y2: y, class: "grid" }));
  }
  minutes.forEach(([begun, , succeeded, failed], place) => {
    const x = (columns - 1 - (last - begun) / 60000) * 10 + 1;
    if (x < 0) return;
    const good = (succeeded / top) * height, bad = (failed / top) * height;
    const spot = svg("g", {}, svg("rect", { x: x - 1, y: 0, width: 10, height, class: "spot" }));
    if (succeeded) spot.append(svg("rect", { x, y: height - good, width: 8, height: good, class: "good" }));
    if (failed) spot.append(svg("rect", { x, y: height - good - bad, width: 8, height: Math.max(bad, 1), class: "bad" }));
    spot.addEventListener("pointerenter", () => show(place));
    spots[place] = spot;
    drawing.append(spot);
  });
  const frame = el("div", {
    class: "frame", tabindex: "0", role: "group", "aria-label": "Succeeded and failed per minute; the arrow keys move from minute to minute",
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      show(at + step);
    },
  }, drawing, el("span", { class: "scale top" }, number(top)), el("span", { class: "scale middle" }, number(top / 2)));
  const axis = el("div", { class: "axis" }, el("span", {}, clockTime(last - (columns - 1) * 60000)),
    el("span", {}, first > last - (columns - 1) * 60000 ? `watched since ${clockTime(first)}` : clockTime(last - columns * 30000)), el("span", {}, "now"));
  if (minutes.length) show(at);
  return { frame, axis, told };
}

/**
 * The next number that is round.
 * @param {number} value
 */
function nice(value) {
  const step = 10 ** Math.floor(Math.log10(value));
  return Math.max(([1, 2, 5, 10].find((factor) => factor * step >= value) ?? 10) * step, 2);
}

/**
 * A small line, for a card.
 * @param {number[]} values
 * @param {string} [kind]
 */
export function spark(values, kind = "") {
  const most = Math.max(...values, 1), step = 100 / Math.max(values.length - 1, 1);
  const points = values.map((value, place) => `${(place * step).toFixed(1)},${(24 - (value / most) * 22).toFixed(1)}`).join(" ");
  return svg("svg", { viewBox: "0 0 100 26", preserveAspectRatio: "none", "aria-hidden": "true", class: `spark ${kind}` },
    svg("polygon", { points: `0,26 ${points} 100,26` }), svg("polyline", { points }));
}
