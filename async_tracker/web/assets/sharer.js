// @ts-check
// One stream for all tabs of this browser: a browser opens six connections to one address, and tabs would use them up.
import { Feed, onWake } from "./feed.js";

const GONE_AFTER = 60000;

/** @type {Map<MessagePort, { topics: string[], heard: number }>} */
const tabs = new Map();
/** @type {Record<string, any>} */
const scope = /** @type {any} */ (self);

const feed = new Feed(
  new URL("../../", self.location.href),
  (news) => tell({ news }, (tab) => tab.topics.length > 0),
  (status) => tell({ status }, (tab) => tab.topics.length > 0),
);

/** @param {any} message @param {(tab: { topics: string[] }) => boolean} wanted */
function tell(message, wanted) {
  for (const [port, tab] of tabs) if (wanted(tab)) port.postMessage(message);
}

function look() {
  for (const [port, tab] of tabs) if (tab.heard < Date.now() - GONE_AFTER) tabs.delete(port);
  return feed.look([...tabs.values()].flatMap((tab) => tab.topics));
}

onWake(() => {
  for (const tab of tabs.values()) tab.heard = Date.now();  // they slept too, and have not said good-bye
});
scope.onconnect = (/** @type {MessageEvent} */ event) => {
  const port = event.ports[0];
  port.onmessage = ({ data }) => {
    if (data.bye) tabs.delete(port);
    else {
      if (data.call) port.postMessage({ call: data.call });  // whatever came before this was older
      tabs.set(port, { topics: data.topics ?? tabs.get(port)?.topics ?? [], heard: Date.now() });
    }
    if (!look() && data.again) feed.again();
  };
};
setInterval(look, GONE_AFTER / 4);
