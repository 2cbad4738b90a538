// @ts-check
// The live stream, read from the server: what is looked at goes in, news comes out. It heals itself.

/** @typedef {{ kind: "live" | "waiting" | "refused" | "away" | "woken", message?: string, code?: number, gap?: number }} Status */
/** @typedef {{ now: number, at: number, news: [string, any[]][], topics: string[] }} News */

// Time that went by without us: the machine slept, the browser froze the page, or the clock was set.

const EVERY = 1000, LONGEST_GAP = 5000, BACK_AT_MOST = 1000;

let seen = Date.now();
/** @type {((gap: number) => void)[]} */
const listeners = [];

/** Have a function told each time, with how many milliseconds went by: less than 0 where the clock was set back. @param {(gap: number) => void} listener */
export function onWake(listener) {
  listeners.push(listener);
}

/** Look at the clock, and tell the listeners where we stood still. A timer asks; so does each message, which may come before the timer. */
export function lookAtTheClock() {
  const now = Date.now(), gap = now - seen;
  seen = now;
  if (gap >= -BACK_AT_MOST && gap <= LONGEST_GAP) return;
  for (const listener of listeners) listener(gap);
}

setInterval(lookAtTheClock, EVERY);

// The connection.

const SILENT_FOR = 20000;
const LONGEST_WAIT = 8000;

/** One connection to the server, for as long as something is looked at. */
export class Feed {
  /**
   * @param {URL} base the folder that the page is in
   * @param {(news: News) => void} onNews
   * @param {(status: Status) => void} onStatus
   */
  constructor(base, onNews, onStatus) {
    this.base = base;
    this.onNews = onNews;
    this.onStatus = onStatus;
    /** @type {string[]} */
    this.topics = [];
    this.lastId = "";
    this.failures = 0;
    /** Ask anew every so many milliseconds instead of holding a connection; 0 is to hold it. */
    this.pollEvery = 0;
    /** @type {AbortController | null} */
    this.connection = null;
    /** @type {(() => void) | null} */
    this.wake = null;
    this.running = false;
    /** Whole pictures were asked for: that the connection ended is no failure. */
    this.isCalled = false;
    onWake(() => this.again());
  }

  /**
   * Look at these topics from now on; at none, no connection is held. Tells whether that is a change.
   * @param {string[]} topics
   * @returns {boolean}
   */
  look(topics) {
    const wanted = [...new Set(topics)].sort();
    if (wanted.join("\n") === this.topics.join("\n")) return false;
    this.topics = wanted;
    this.again();
    return true;
  }

  /** Ask for whole pictures, at once. */
  again() {
    this.lastId = "";
    this.isCalled = true;
    this.connection?.abort();
    this.wake?.();
    if (this.topics.length && !this.running) void this.run();
  }

  async run() {
    this.running = true;
    while (this.topics.length) {
      const topics = this.topics;
      this.isCalled = false;
      try {
        await this.read(topics);
        this.failures = 0;
        if (this.pollEvery) await this.pause(this.pollEvery);
      } catch (error) {
        if (topics !== this.topics || this.isCalled) continue;
        this.failures += 1;
        if (!(error instanceof Refused)) this.onStatus({ kind: "away", message: "the server of this page does not answer" });
      }
      if (topics === this.topics) await this.pause(this.failures ? Math.min(1000 * 2 ** (this.failures - 1), LONGEST_WAIT) : 300);
    }
    this.running = false;
  }

  /** @param {number} milliseconds */
  pause(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.wake = () => {
        clearTimeout(timer);
        resolve(undefined);
      };
    });
  }

  /** @param {string[]} topics */
  async read(topics) {
    const connection = (this.connection = new AbortController());
    const address = new URL("api/v1/live", this.base);
    for (const topic of topics) address.searchParams.append("topic", topic);
    if (this.pollEvery) address.searchParams.append("once", "1");
    let silence = setTimeout(() => connection.abort(), SILENT_FOR);
    try {
      const headers = this.lastId ? { "last-event-id": this.lastId } : undefined;
      const response = await fetch(address, { signal: connection.signal, headers, cache: "no-store", credentials: "same-origin" });
      if (!response.ok || !response.body) {
        const message = await response.json().then((found) => found.error.message, () => `status ${response.status}`);
        this.lastId = "";
        this.onStatus({ kind: "refused", code: response.status, message });
        throw new Refused(message);
      }
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ; ) {
        const { value, done } = await reader.read();
        if (done) return;
        clearTimeout(silence);
        silence = setTimeout(() => connection.abort(), SILENT_FOR);
        text += value;
        for (let end; (end = text.indexOf("\n\n")) >= 0; text = text.slice(end + 2)) this.take(text.slice(0, end), topics, connection.signal);
      }
    } finally {
      clearTimeout(silence);
      connection.abort();
    }
  }

  /** @param {string} event @param {string[]} topics @param {AbortSignal} signal of the connection that it came by */
  take(event, topics, signal) {
    lookAtTheClock();  // what was sent while we stood still is read at once afterwards, and is old
    if (signal.aborted) return;
    let data = "", id = "";
    for (const line of event.split("\n")) {
      if (line.startsWith("data: ")) data = line.slice(6);
      else if (line.startsWith("id: ")) id = line.slice(4);
    }
    if (!data || topics !== this.topics) return;
    if (!this.pollEvery) this.lastId = id;
    this.failures = 0;
    this.onStatus({ kind: "live" });
    this.onNews({ ...JSON.parse(data), topics });
  }
}

class Refused extends Error {}
