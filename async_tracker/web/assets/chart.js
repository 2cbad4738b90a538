// @ts-check
// Charts, made by hand of SVG.
import { el, svg } from "./dom.js";
import { clockTime, cut, duration, number } from "./wording.js";

/**
 * One step of a history: when it began; then, unless nothing is known of it, how many started, succeeded, failed and were recovered, jobs in
 * flight, p50 and p95 of the run time, p95 of the wait, the oldest wait in a queue, and instances, which may all be null; and orphans.
 * @typedef {(number | null)[]} Point
 */
/** When a version was new in the fleet, and which. @typedef {[number, string]} Deploy */
export const BUSY = 5, P50 = 6, P95 = 7, WAIT = 8, OLDEST = 9, INSTANCES = 10, ORPHANS = 11;

/**
 * Leave out steps before the first of which something is known: of a young namespace the last quarter or half of the span is shown.
 * @param {Point[]} points
 */
export function shown(points) {
  const known = points.findIndex((point) => point.length > 1);
  const least = [4, 2].map((part) => Math.ceil(points.length / part)).find((count) => count >= points.length - known);
  return known < 0 || least === undefined ? points : points.slice(-least);
}

/**
 * Put each deploy to the step in which it was; those before the first step are left out.
 * @param {Deploy[]} deploys
 * @param {Point[]} points
 * @returns {Map<number, string[]>}
 */
function placed(deploys, points) {
  /** @type {Map<number, string[]>} */
  const found = new Map();
  for (const [at, version] of deploys) {
    const later = points.findIndex((point) => Number(point[0]) > at), place = (later < 0 ? points.length : later) - 1;
    if (place >= 0) found.set(place, [...(found.get(place) ?? []), version]);
  }
  return found;
}

/**
 * The marks of deploys above a drawing: a flag at each, with its version where there is room for that.
 * @param {Map<number, string[]>} marks
 * @param {number} steps
 */
function flags(marks, steps) {
  let free = 0;
  return [...marks].sort(([one], [other]) => one - other).map(([place, versions]) => {
    const at = (place + 0.5) / steps, hasRoom = at >= free, isLast = at > 0.75, version = versions[versions.length - 1];
    if (hasRoom) free = at + 0.2;
    const flag = el("span", { class: `flag${isLast ? " left" : ""}`, title: `deployed: ${versions.join(", ")}` }, isLast ? "" : "▸", hasRoom && cut(version, 16), isLast ? "◂" : "");
    flag.style.left = `${at * 100}%`;
    return flag;
  });
}

/**
 * A drawing with one column for each step: arrows move through them, a pointer does too.
 * @param {Point[]} points
 * @param {{ label: string, height: number, most: string, half: string, spots: (Node[] | null)[], over?: Node[], deploys?: Deploy[], said: (point: Point) => string }} what
 */
function framed(points, { label, height, most, half, spots, over = [], deploys = [], said }) {
  const told = el("output", { class: "told" }), width = points.length * 10, marks = placed(deploys, points);
  let at = points.length - 1;
  /** @type {SVGElement[]} */
  const columns = [];
  const show = (/** @type {number} */ place) => {
    at = Math.min(Math.max(place, 0), points.length - 1);
    columns.forEach((column, other) => column.classList.toggle("on", other === at));
    const deployed = marks.has(at) ? ` · deployed ${marks.get(at)?.join(", ")}` : "";
    told.textContent = `${clockTime(Number(points[at][0]))} · ${points[at].length > 1 ? said(points[at]) : "nothing is known"}${deployed}`;
  };
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "chart" });
  for (const line of [0, 0.5]) drawing.append(svg("line", { x1: 0, x2: width, y1: line * height + 0.5, y2: line * height + 0.5, class: "grid" }));
  spots.forEach((marks, place) => {
    const spot = svg("g", {}, svg("rect", { x: place * 10, y: 0, width: 10, height, class: marks ? "spot" : "spot gap" }), ...(marks ?? []));
    spot.addEventListener("pointerenter", () => show(place));
    columns[place] = spot;
    drawing.append(spot);
  });
  for (const place of marks.keys()) drawing.append(svg("line", { x1: place * 10 + 5, x2: place * 10 + 5, y1: 0, y2: height, class: "deploy" }));
  drawing.append(...over);
  const frame = el("div", {
    class: "frame", tabindex: "0", role: "group", "aria-label": `${label}; the arrow keys move from step to step`,
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      show(at + step);
    },
  }, drawing, el("span", { class: "scale top" }, most), el("span", { class: "scale middle" }, half), ...flags(marks, points.length));
  const axis = el("div", { class: "axis" }, ...[0, Math.floor(points.length / 2)].map((place) => el("span", {}, clockTime(Number(points[place][0])))), el("span", {}, "now"));
  if (points.length) show(at);
  return { frame, axis, told };
}

/**
 * How many have succeeded and failed in each step.
 * @param {Point[]} points
 * @param {Deploy[]} [deploys]
 */
export function ends(points, deploys) {
  const height = 100;
  const top = nice(Math.max(...points.map(([, started = 0, succeeded = 0, failed = 0]) => Math.max(started ?? 0, (succeeded ?? 0) + (failed ?? 0))), 1));
  const spots = points.map((point, place) => {
    if (point.length < 2) return null;
    const good = (Number(point[2]) / top) * height, bad = (Number(point[3]) / top) * height, x = place * 10 + 1;
    return [
      good > 0 && svg("rect", { x, y: height - good, width: 8, height: good, class: "good" }),
      bad > 0 && svg("rect", { x, y: height - good - bad, width: 8, height: Math.max(bad, 1), class: "bad" }),
    ].filter((mark) => mark instanceof Node);
  });
  return framed(points, {
    label: "Succeeded and failed", height, most: number(top), half: number(top / 2), spots, deploys,
    said: ([, started, succeeded, failed, recovered]) => `${number(started)} started, ${number(succeeded)} succeeded, ${number(failed)} failed`
      + (recovered ? `, ${number(recovered)} recovered` : ""),
  });
}

/**
 * Durations in each step: one line for each place of the points.
 * @param {Point[]} points
 * @param {[number, string][]} lines the place of each, and its name
 * @param {Deploy[]} [deploys]
 */
export function times(points, lines, deploys) {
  const height = 100, most = Math.max(...points.flatMap((point) => lines.map(([place]) => point[place] ?? 0)), 0.001) * 1.1;
  const over = lines.map(([place], kind) => {
    let isOn = false;
    const path = points.map((point, column) => {
      const value = point[place] ?? null, before = isOn;
      isOn = value !== null;
      return value === null ? "" : `${before ? "L" : "M"}${column * 10 + 5} ${(height - (value / most) * height).toFixed(1)}h.01`;
    });
    return svg("path", { d: path.join(""), class: `line k${kind}` });
  });
  return framed(points, {
    label: lines.map(([, name]) => name).join(" and "), height, most: duration(most), half: duration(most / 2), over, deploys,
    spots: points.map((point) => (point.length > 1 ? [] : null)),
    said: (point) => lines.map(([place, name]) => `${name} ${duration(point[place])}`).join(", "),
  });
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
 * A small line, for a card: what is not known is a gap.
 * @param {(number | null)[]} values
 * @param {string} [kind]
 */
export function spark(values, kind = "") {
  const most = Math.max(...values.map((value) => value ?? 0), 1), step = 100 / Math.max(values.length - 1, 1);
  /** @type {string[][]} */
  const parts = [[]];
  values.forEach((value, place) => {
    if (value === null) parts.push([]);
    else parts[parts.length - 1].push(`${(place * step).toFixed(1)},${(24 - (value / most) * 22).toFixed(1)}`);
  });
  const drawn = parts.filter((part) => part.length).flatMap((part) => {
    const x = (/** @type {string} */ point) => point.split(",")[0];
    return [svg("polygon", { points: `${x(part[0])},26 ${part.join(" ")} ${x(part[part.length - 1])},26` }), svg("polyline", { points: part.join(" ") })];
  });
  return svg("svg", { viewBox: "0 0 100 26", preserveAspectRatio: "none", "aria-hidden": "true", class: `spark ${kind}` }, ...drawn);
}
