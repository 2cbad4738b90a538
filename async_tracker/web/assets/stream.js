// @ts-check
// What this tab looks at, and the pictures that come of it. A hidden tab looks at nothing.
import { Feed, lookAtTheClock, onWake } from "./feed.js";
import { setClock } from "./wording.js";

/** @typedef {{ facts: Record<string, any>, order: number[], rows: Map<number, any>, error: string | null, is: boolean }} Picture */

/** @type {Map<string, Picture>} */
const pictures = new Map();
/** @type {string[]} */
let wanted = [];
/** @type {(topics: string[], again?: boolean) => void} */
let ask;
/** @type {(status: import("./feed.js").Status) => void} */
let tellStatus;
/** @type {(changed: Set<string>, at: number) => void} */
let tellNews;

/** Whether what is shown is old, because we stood still or were hidden: then only whole pictures will do, and of those that come after our call. */
let isOld = false, calls = 0, answered = 0, hiddenAt = Date.now();

/** @returns {Picture} */
const blank = () => ({ facts: {}, order: [], rows: new Map(), error: null, is: false });

/**
 * Begin. `onNews` is told which topics have changed.
 * @param {URL} base
 * @param {(changed: Set<string>, at: number) => void} onNews
 * @param {(status: import("./feed.js").Status) => void} onStatus
 */
export function begin(base, onNews, onStatus) {
  tellNews = onNews;
  tellStatus = onStatus;
  ask = typeof SharedWorker === "function" ? shared() : alone(base);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      hiddenAt = Date.now();
      ask([]);
    } else wake(Date.now() - hiddenAt);
  });
  addEventListener("pageshow", (event) => event.persisted && wake(Date.now() - hiddenAt));
  addEventListener("online", () => document.hidden || ask(wanted, true));
  onWake((gap) => document.hidden || wake(gap));
}

/** Say that what is shown is old, and ask for all of it. @param {number} gap milliseconds for which nothing was heard */
function wake(gap) {
  isOld = true;
  calls += 1;
  tellStatus({ kind: "woken", gap });
  ask(wanted, true);
}

/** @returns {(topics: string[], again?: boolean) => void} */
function shared() {
  const worker = new SharedWorker(new URL("./sharer.js", import.meta.url), { type: "module" });
  worker.port.onmessage = ({ data }) => {
    if (data.call) answered = data.call;
    else if (data.news) take(data.news);
    else hear(data.status);
  };
  setInterval(() => worker.port.postMessage({ topics: document.hidden ? [] : wanted }), 15000);
  addEventListener("pagehide", () => worker.port.postMessage({ bye: true }));
  return (topics, again) => worker.port.postMessage({ topics, call: calls, again: again || topics.some((topic) => !pictures.get(topic)?.is) });
}

/**
 * Without a shared worker: two tabs may hold a connection, all others ask every five seconds.
 * @param {URL} base
 * @returns {(topics: string[], again?: boolean) => void}
 */
function alone(base) {
  const feed = new Feed(base, take, hear);
  feed.pollEvery = 5000;
  const hold = () => {
    feed.pollEvery = 0;
    feed.again();
    return new Promise(() => {});
  };
  if (navigator.locks) {
    for (const name of ["one", "two"]) {
      void navigator.locks.request(`async-tracker ${name}`, { ifAvailable: true }, (lock) => (lock && feed.pollEvery ? hold() : null));
    }
  }
  return (topics, again) => {
    answered = calls;
    if (!feed.look(topics) && again) feed.again();
  };
}

/** @param {import("./feed.js").Status} status */
function hear(status) {
  if (!isOld || status.kind !== "live") tellStatus(status);
}

/** Look at these topics; pictures of others are forgotten. @param {string[]} topics */
export function look(topics) {
  wanted = topics;
  for (const name of pictures.keys()) if (name !== "head" && !topics.includes(name)) pictures.delete(name);
  if (!document.hidden) ask(topics);
}

/** Ask for everything anew: something was changed from here. */
export const refresh = () => ask(wanted, true);

/** @param {string} topic @returns {Picture} */
export const picture = (topic) => pictures.get(topic) ?? blank();

/** @param {import("./feed.js").News} news */
function take(news) {
  lookAtTheClock();
  if (isOld && (answered !== calls || !news.news.some(([, parts]) => parts.some((part) => part.whole)))) return;
  setClock(news.now);
  if (isOld) {
    isOld = false;
    tellStatus({ kind: "live" });
  }
  const changed = new Set();
  for (const [name, parts] of news.news) {
    if (name !== "head" && !wanted.includes(name)) continue;
    for (const part of parts) apply(name, part);
    changed.add(name);
  }
  tellNews(changed, news.at);
}

/** @param {string} name @param {any} part */
function apply(name, part) {
  const old = part.whole ? blank() : pictures.get(name);
  if (!old || (!old.is && !part.whole)) return;
  const rows = new Map(old.rows);
  for (const [key, changes] of Object.entries(part.rows ?? {})) rows.set(Number(key), { ...rows.get(Number(key)), ...changes });
  const order = part.order ?? old.order;
  if (part.order) for (const key of rows.keys()) if (!order.includes(key)) rows.delete(key);
  const error = "error" in part ? part.error : old.error;
  pictures.set(name, { facts: { ...old.facts, ...part.facts }, order, rows, error, is: true });
}
