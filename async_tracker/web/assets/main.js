// @ts-check
// The page: its header, which screen is shown, and how it is told what changes.
import { remember, tell } from "./act.js";
import { address, ask, asked, base, onAddress, screen, SCREENS } from "./address.js";
import { doctor } from "./doctor.js";
import { byId, el, fill } from "./dom.js";
import { events } from "./events.js";
import { lookAtTheClock } from "./feed.js";
import { functions } from "./functions.js";
import { instances } from "./instances.js";
import { jobs } from "./jobs.js";
import { listen, showKeys } from "./keys.js";
import { orphans } from "./orphans.js";
import { overview } from "./overview.js";
import { quarantine } from "./quarantine.js";
import { queues } from "./queues.js";
import { begin, look, picture } from "./stream.js";
import { age, countAll, now, number, setClock, since } from "./wording.js";

/** @typedef {{ title: string, namespace: string, environment: string | null, actions: string[], ttl: number, now: number, version: string }} Settings */
/**
 * @typedef {object} Screen
 * @property {HTMLElement} element
 * @property {string} title
 * @property {(query: URLSearchParams) => string} [topic] what is looked at; without it, its name and whatever is asked
 * @property {(picture: import("./stream.js").Picture) => void} show
 * @property {import("./table.js").Table} [table]
 * @property {(id: string) => Drawer} [drawer]
 */
/** @typedef {{ element: HTMLElement, title: string, topic: string, show: (picture: import("./stream.js").Picture) => void }} Drawer */

/** @type {Settings} */
const settings = JSON.parse(/** @type {HTMLMetaElement} */ (document.querySelector("meta[name=settings]")).content);
/** @type {Record<string, (settings: Settings) => Screen>} */
const makers = { overview, instances, jobs, orphans, quarantine, functions, queues, events, doctor };

const main = byId("main"), drawerPlace = byId("drawer"), bar = byId("bar");
/** @type {Screen} */
let shown;
/** @type {Drawer | null} */
let drawer = null;
let shownName = "", shownQuery = "", openId = "", topic = "";
let isPaused = false, readAt = 0;
/** Whether the screen, and what is opened, have shown something yet: a page that is paused shows the first of each. */
let isDrawn = false, isDrawerDrawn = false;
/** @type {import("./feed.js").Status} */
let status = { kind: "waiting" };
let waitingSince = Date.now();
/** Where the page stood still: when it noticed, and for how many seconds that was. */
let wokeAt = 0, stoodStill = 0;
const oldFor = () => stoodStill + (Date.now() - wokeAt) / 1000;
const LATE_AFTER = 10, CALM_FOR = 700;

// The header.

const counts = /** @type {Record<string, HTMLElement>} */ (Object.fromEntries(["instances", "jobs", "orphans", "quarantine"].map((name) => [name, el("b")])));
const links = SCREENS.map((name) => el("a", { href: address(name), dataset: { screen: name } }, name[0].toUpperCase() + name.slice(1), counts[name] && " ", counts[name]));
const live = el("span", { class: "live", title: "How old is what is shown" }, el("span", { class: "dot" }), el("span", { class: "word" }));
/** The same, where what is opened covers the header. */
const oldBeside = el("span", { class: "echo" }, el("span", { class: "dot" }), el("span", { class: "word" }));
const pauseButton = el("button", { type: "button", class: "icon", "aria-pressed": "false", title: "Pause (p)", onclick: pause }, "Pause");
const themeButton = el("button", { type: "button", class: "icon", title: "Theme (t)", onclick: theme }, "Theme");
const keysButton = el("button", { type: "button", class: "icon keys-button", title: "Keys (?)", "aria-label": "Keys", onclick: showKeys }, "?");
byId("top").append(
  el("span", { class: "name" }, el("span", { class: "ns", title: settings.namespace }, settings.title),
    settings.environment && el("span", { class: `env${/^prod/i.test(settings.environment) ? " prod" : ""}` }, settings.environment)),
  el("nav", { "aria-label": "Screens" }, ...links),
  el("span", { class: "tools" }, live, pauseButton, themeButton, keysButton),
);

function pause() {
  isPaused = !isPaused;
  pauseButton.setAttribute("aria-pressed", String(isPaused));
  pauseButton.textContent = isPaused ? "Go on" : "Pause";
  document.body.classList.toggle("paused", isPaused);
  if (shown.table) shown.table.isPaused = isPaused;
  if (!isPaused) {
    shown.table?.release(false);
    show(new Set(["head", topic, drawer?.topic ?? ""]));
  }
}

function theme() {
  const order = ["", "light", "dark"], root = document.documentElement;
  const next = order[(order.indexOf(root.dataset.theme ?? "") + 1) % order.length];
  if (next) root.dataset.theme = next;
  else delete root.dataset.theme;
  tell(`Theme: ${next || "the system's"}`);
  remember("theme", next);
}

// What is shown.

function route() {
  const name = screen(), query = asked();
  const open = query.get("open") ?? "";
  query.delete("open");
  const isOther = name !== shownName, before = topic;
  // The text in the filter is the field's own; whatever else is asked makes the screen anew.
  const key = new URLSearchParams(query);
  key.delete("q");
  if (isOther || key.toString() !== shownQuery) {
    shown = makers[name](settings);
    main.replaceChildren(el("h1", { class: "hidden" }, shown.title), shown.element);
    document.body.dataset.screen = name;
    if (shown.table) shown.table.isPaused = isPaused;
    isDrawn = false;
    if (isOther) scrollTo(0, 0);
  }
  for (const link of links) {
    if (link.dataset.screen === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (isOther) showLink();
  shownName = name;
  shownQuery = key.toString();
  const wanted = new URLSearchParams([...query].filter(([parameter]) => parameter !== "token"));
  topic = (shown.topic?.(wanted) ?? `${name}?${wanted}`).replace(/\?$/, "");
  if (topic !== before && shown.table) shown.table.isAskedAnew = true;
  openDrawer(open);
  const held = open ? `${open} · ${shown.title}` : shown.title;
  document.title = `${held} · ${settings.title}`;
  look([topic, ...(drawer ? [drawer.topic] : [])]);
  show(new Set([topic, drawer?.topic ?? ""]));
}

/** Where the links have no room, show the one of this screen. */
function showLink() {
  document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
}

/** @param {string} id */
function openDrawer(id) {
  if (id === openId && (id === "") === (drawer === null)) return;
  openId = id;
  drawer = id && shown.drawer ? shown.drawer(id) : null;
  isDrawerDrawn = false;
  drawerPlace.hidden = !drawer;
  document.body.classList.toggle("opened", drawer !== null);
  if (!drawer) return drawerPlace.replaceChildren();
  const heading = el("h2", { tabindex: "-1", title: id }, drawer.title);
  const close = el("button", { type: "button", class: "icon", onclick: closeDrawer }, "Close");
  showLive();
  drawerPlace.setAttribute("aria-label", drawer.title);
  drawerPlace.replaceChildren(el("div", { class: "drawer-head" }, heading, oldBeside, close), drawer.element);
  heading.focus({ preventScroll: true });
}

function closeDrawer() {
  if (!drawer) return false;
  const id = openId;
  ask({ open: null });
  /** @type {HTMLElement | null} */
  const link = main.querySelector(`a.id[title="${CSS.escape(id)}"]`);
  link?.focus();
  return true;
}

/** @param {Set<string>} changed */
function show(changed) {
  if (changed.has("head")) showHead();
  const own = picture(topic);
  if (changed.has(topic) && own.is && (!isPaused || shown.table || !isDrawn)) {
    shown.show(own);
    isDrawn = true;
  }
  if (changed.has(topic)) shown.element.classList.toggle("stale", own.error !== null);
  const opened = drawer ? picture(drawer.topic) : null;
  if (drawer && opened?.is && changed.has(drawer.topic) && (!isPaused || !isDrawerDrawn)) {
    drawer.show(opened);
    isDrawerDrawn = true;
  }
  showBar();
  for (const element of document.querySelectorAll("[data-beat]")) beat(/** @type {HTMLElement} */ (element));
}

function showHead() {
  const { facts } = picture("head");
  const isFirst = !counts.instances.textContent;
  fill(counts.instances, number(facts.instances));
  fill(counts.jobs, number(facts.jobs));
  fill(counts.orphans, number(facts.orphans));
  fill(counts.quarantine, number(facts.quarantined));
  if (isFirst) showLink();
  counts.instances.className = facts.stalled ? "warn" : "";
  counts.orphans.className = facts.orphans ? "hot" : "";
  counts.quarantine.className = facts.quarantined ? "hot" : "";
}

/** What is wrong with the page itself: Redis away, the server away, the session over, a new version. */
function showBar() {
  const { facts } = picture("head"), own = picture(topic);
  /** @type {import("./dom.js").Child[]} */
  let said = [];
  if (status.kind === "refused" && status.code === 401) said = ["The session of this page is over, or the server was started again: ", "open the address that ", el("code", {}, "async-tracker serve"), " has printed. This page comes back by itself then."];
  else if (status.kind === "refused") said = [`The server refuses: ${status.message}`];
  else if (status.kind === "woken") said = Date.now() - wokeAt > CALM_FOR ? [`This page stood still: what stands here is ${age(oldFor())} old, and is being read anew.`] : [];
  else if (status.kind === "away") said = ["The server of this page does not answer", since(readAt || null, "", " since "), ". What stands here is as old as that; it comes back by itself."];
  else if (facts.away) said = ["Redis is away", since(facts.away.since, "", " since "), `: ${facts.away.why.replace(/\.$/, "")}. Jobs run on; ${readAt ? "what stands here is as old as that, and it" : "the page"} comes back by itself.`];
  else if (facts.page && facts.page !== settings.version) said = ["This page is served in another version now: ", el("a", { href: location.href, target: "_self" }, "load it again"), "."];
  else if (own.error !== null) said = [`This screen cannot be read: ${own.error}`];
  bar.classList.toggle("shown", said.length > 0);
  fill(bar, ...said);
  document.body.classList.toggle("old", !isFresh());
}

/** Whether what stands here is what is: else it is told as it was, and no age in it counts on. */
const isFresh = () => status.kind === "live" && !picture("head").facts.away;

function showLive() {
  const seconds = status.kind === "woken" ? oldFor() : Math.max((now() - readAt) / 1000, 0);
  const isLive = readAt > 0 && isFresh(), isLate = seconds > LATE_AFTER;
  const text = isPaused ? "paused" : isLive ? (isLate ? `late · ${age(seconds)}` : `live · ${seconds.toFixed(1)} s`)
    : status.kind === "waiting" && Date.now() - waitingSince < 3000 ? "connecting" : readAt ? `old · ${age(seconds)}` : "not connected";
  for (const place of [live, oldBeside]) {
    const word = /** @type {HTMLElement} */ (place.querySelector(".word"));
    if (word.textContent !== text) word.textContent = text;
    place.className = `${place === live ? "live" : "echo"} ${isPaused ? "off" : !isLive ? "bad" : isLate ? "late" : "ok"}`;
  }
  oldBeside.hidden = isLive && !isLate && !isPaused;
}

/** How far a heartbeat is towards its limit. @param {HTMLElement} element */
function beat(element) {
  const part = Math.min((now() - Number(element.dataset.beat)) / 1000 / Number(element.dataset.ttl), 1);
  element.style.width = `${Math.round(part * 100)}%`;
  element.classList.toggle("late", part > 0.67);
}

// Begin.

setClock(settings.now);
onAddress(route);
document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-copy]") : null;
  if (button instanceof HTMLElement) {
    navigator.clipboard?.writeText(button.dataset.copy ?? "").then(() => tell("Copied."), () => tell("This browser does not let the page copy.", true));
  }
});
listen({ table: () => shown.table, pause, theme, close: closeDrawer });
begin(base, (changed, at) => {
  readAt = at;
  show(changed);
  showLive();
}, (told) => {
  if (told.kind === "waiting") waitingSince = Date.now();
  if (told.kind === "woken" && status.kind !== "woken") [wokeAt, stoodStill] = [Date.now(), Math.max(told.gap ?? 0, readAt && now() - readAt, 0) / 1000];
  status = told;
  showBar();
  showLive();
});
setInterval(() => {
  if (document.hidden) return;
  lookAtTheClock();
  countAll(bar);
  if (isPaused || !isFresh()) return;
  countAll(document.body);
  for (const element of document.querySelectorAll("[data-limit], [data-usual]")) {
    const time = /** @type {HTMLElement} */ (element), runs = (now() - Number(time.dataset.since)) / 1000;
    const isLate = runs > Number(time.dataset.limit ?? Infinity);
    time.classList.toggle("bad-text", isLate);
    time.classList.toggle("warn-text", !isLate && runs > Number(time.dataset.usual ?? Infinity));
  }
  for (const element of document.querySelectorAll("[data-beat]")) beat(/** @type {HTMLElement} */ (element));
}, 1000);
setInterval(() => {
  if (document.hidden) return;
  lookAtTheClock();
  showLive();
  if (status.kind === "woken") showBar();
}, 500);
route();
