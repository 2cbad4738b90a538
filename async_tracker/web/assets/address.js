// @ts-check
// The address of what is shown: a screen and its filters, to be sent to a colleague; Back works.

export const SCREENS = ["overview", "instances", "jobs", "orphans", "quarantine", "functions", "queues", "events", "doctor"];

/** The folder that the page is in, whatever prefix it is served under. */
export const base = new URL("./", location.href);

/** @type {() => void} */
let changed = () => {};

/** @param {() => void} listener told after each change of the address */
export function onAddress(listener) {
  changed = listener;
  addEventListener("popstate", listener);
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!(link instanceof HTMLAnchorElement) || event.ctrlKey || event.metaKey || event.shiftKey || event.button || link.target) return;
    const to = new URL(link.href);
    if (link.getAttribute("href")?.startsWith("#") || to.origin !== location.origin || !to.pathname.startsWith(base.pathname)) return;
    event.preventDefault();
    go(link.href);
  });
}

/** The screen that is shown. */
export function screen() {
  const name = decodeURIComponent(location.pathname.slice(base.pathname.length));
  return SCREENS.includes(name) ? name : "overview";
}

/** What is asked of the screen. */
export const asked = () => new URLSearchParams(location.search);

/** Go somewhere else. @param {string} href */
export function go(href) {
  if (href !== location.href) history.pushState(null, "", href);
  changed();
}

/**
 * Change what is asked: null takes a name out. Typing replaces the entry in the history, a click adds one.
 * @param {Record<string, string | null>} changes
 * @param {{ replace?: boolean }} [options]
 */
export function ask(changes, { replace = false } = {}) {
  const query = asked();
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  const to = address(screen(), query);
  if (replace) history.replaceState(null, "", to);
  else history.pushState(null, "", to);
  changed();
}

/**
 * The address of a screen.
 * @param {string} name
 * @param {URLSearchParams | Record<string, string>} [query]
 */
export function address(name, query = {}) {
  const text = new URLSearchParams(query).toString();
  return (name === "overview" ? "./" : name) + (text ? `?${text}` : "");
}

/**
 * The address of one thing of a screen, opened beside what is asked of that screen where it is shown.
 * @param {string} name
 * @param {string | null} id
 */
export function opened(name, id) {
  const query = screen() === name ? asked() : new URLSearchParams();
  if (id !== null) query.set("open", id);
  return address(name, query);
}
