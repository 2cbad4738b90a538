// @ts-check
// Elements, made without markup: what an id or a message holds is text and never anything else.

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * Make an element. Attributes that are null or false are left out; `on…` are listeners, `dataset` an object.
 * @param {string} tag
 * @param {Record<string, any>} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "dataset") Object.assign(made.dataset, value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...nodes(children));
  return made;
}

/**
 * Make an element of a drawing.
 * @param {string} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {...Node} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

/**
 * @param {(Child | Child[])[]} children
 * @returns {(Node | string)[]}
 */
function nodes(children) {
  return children
    .flat()
    .filter((child) => child !== null && child !== undefined && child !== false)
    .map((child) => (child instanceof Node ? child : String(child)));
}

/**
 * Replace what an element holds, unless it holds the same already: then a reader or the focus there is not disturbed.
 * @param {Element} element
 * @param {...(Child | Child[])} children
 */
export function fill(element, ...children) {
  const made = document.createElement(element.tagName);
  made.append(...nodes(children));
  if (!same(element, made)) element.replaceChildren(...made.childNodes);
}

/**
 * Whether two elements show the same; the clock writes into those that count, which are compared by what they count from.
 * @param {Element} old
 * @param {Element} made
 * @returns {boolean}
 */
function same(old, made) {
  if (old.childNodes.length !== made.childNodes.length) return false;
  return [...old.childNodes].every((node, place) => {
    const other = made.childNodes[place];
    if (!(node instanceof Element) || !(other instanceof Element)) return node.nodeType === other.nodeType && node.nodeValue === other.nodeValue;
    if (node.tagName !== other.tagName || node.attributes.length !== other.attributes.length) return false;
    if (![...other.attributes].every((attribute) => node.getAttribute(attribute.name) === attribute.value)) return false;
    return node instanceof HTMLElement && "since" in node.dataset ? true : same(node, other);
  });
}

/**
 * Names and values; those that hold nothing are left out.
 * @param {(Child | Child[])[][]} pairs
 */
export const facts = (pairs) => el("dl", { class: "facts" }, ...pairs.filter(([, value]) => value).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));

/**
 * @param {string} id
 * @returns {HTMLElement}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}
