// What all views of the page are made of. Whatever comes from the store is written as text nodes, never as markup;
// numbers are shown and sent as the text that they are, since those of JavaScript end at 2^53.

export const $ = (selector, within = document) => within.querySelector(selector);

/** Make an element: attributes, then children, which are elements or texts. */
export function make(tag, attributes = {}, ...children) {
  const element = tag === "svg" || svgTags.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}
export const fill = (element, ...children) => element.replaceChildren(...children.filter((child) => child != null));
const svgTags = new Set(["rect", "text", "g", "title", "circle", "line"]);

export const state = { namespace: [], view: "items", edit: false, modes: [], subtree: false, order: "key", pattern: "", filter: "" };

// Asking the server

export async function ask(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value == null || value === false || value === "") continue;
    query.set(name, typeof value === "string" ? value : JSON.stringify(value));
  }
  return answered(await fetch(`/api/${path}?${query}`));
}

export async function change(path, body) {
  return answered(await fetch(`/api/${path}`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  }));
}

async function answered(response) {
  const text = await response.text();
  let body = null;
  try { body = JSON.parse(text); } catch { /* plain words */ }
  if (!response.ok) throw new Error(body?.error ?? text.trim());
  return body;
}

export function say(text, kind = "") {
  const said = $("#said");
  said.textContent = text;
  said.className = kind;
}

/** Run what the user asked for; an error is said, and ends nothing. */
export const trying = (work) => async (...args) => {
  try { say(""); return await work(...args); } catch (error) { say(error.message, "bad"); }
};

// Writing what is shown

export const showNamespace = (labels) => labels.length ? labels.map(visible).join(" / ") : "(root)";
export const visible = (text) => text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
  (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
export const showTime = (text) => text == null ? "" : text.replace("T", " ").slice(0, 19);
export const showCount = (number) => number.toLocaleString("en");
export const countOf = (number, what, sign = "") => `${showCount(number)}${sign} ${what}${number === 1 ? "" : "s"}`;

export function showSize(bytes) {
  if (bytes == null) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

// JSON as a tree; a parser of our own, so that each number stays as it is written

export function parseJson(text) {
  let at = 0;
  const skip = () => { while (/\s/.test(text[at] ?? "")) at += 1; };
  function value() {
    skip();
    if (text[at] === "{" || text[at] === "[") {
      const isObject = text[at] === "{", children = [];
      at += 1; skip();
      while (text[at] !== "}" && text[at] !== "]") {
        let name = null;
        if (isObject) { name = string(); skip(); at += 1; }
        children.push([name, value()]);
        skip();
        if (text[at] === ",") { at += 1; skip(); }
      }
      at += 1;
      return { kind: isObject ? "object" : "list", children };
    }
    if (text[at] === '"') return { kind: "string", text: string() };
    const [word] = /^[^\s,\]}]+/.exec(text.slice(at, at + 400));
    at += word.length;
    return { kind: "plain", text: word };
  }
  function string() {
    const begin = at;
    at += 1;
    while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
    at += 1;
    return JSON.parse(text.slice(begin, at));
  }
  return value();
}

const CHILDREN_AT_ONCE = 200;

export function jsonTree(node, name = null, depth = 0) {
  const head = name == null ? [] : [make("span", { class: "name" }, visible(String(name))), ": "];
  if (node.kind === "string") return make("div", { class: "row" }, ...head, make("span", { class: "string" }, visible(JSON.stringify(node.text))));
  if (node.kind === "plain") return make("div", { class: "row" }, ...head, node.text);
  const sign = node.kind === "object" ? "{ }" : "[ ]";
  const box = make("details", { class: "json", open: depth < 2 },
    make("summary", {}, ...head, make("span", { class: "faint" }, `${sign} ${node.children.length}`)));
  let shown = 0;
  const more = () => {
    for (const [label, child] of node.children.slice(shown, shown + CHILDREN_AT_ONCE)) {
      box.append(jsonTree(child, label ?? shown, depth + 1));
      shown += 1;
    }
    if (shown < node.children.length) {
      const button = make("button", { onclick: () => { button.remove(); more(); } }, `${node.children.length - shown} more`);
      box.append(button);
    }
  };
  if (depth < 2) more();
  else box.addEventListener("toggle", more, { once: true });
  return box;
}

// Lines that differ

const MOST_COMPARED = 4_000_000; // pairs of lines; beyond that all of them are taken to differ

/** Return the lines of two texts: [" ", line], ["-", line] of the older, ["+", line] of the newer. */
export function differences(older, newer) {
  const a = older.split("\n"), b = newer.split("\n");
  let begin = 0, end = 0;
  while (begin < a.length && begin < b.length && a[begin] === b[begin]) begin += 1;
  while (end < a.length - begin && end < b.length - begin && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const left = a.slice(begin, a.length - end), right = b.slice(begin, b.length - end);
  const same = (lines) => lines.map((line) => [" ", line]);
  return [...same(a.slice(0, begin)), ...middle(left, right), ...same(a.slice(a.length - end))];
}

function middle(a, b) {
  if (a.length * b.length > MOST_COMPARED) return [...a.map((line) => ["-", line]), ...b.map((line) => ["+", line])];
  const wide = b.length + 1, longest = new Uint32Array((a.length + 1) * wide);
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i * wide + j] = a[i] === b[j] ? longest[(i + 1) * wide + j + 1] + 1
        : Math.max(longest[(i + 1) * wide + j], longest[i * wide + j + 1]);
    }
  }
  const found = [];
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { found.push([" ", a[i]]); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && longest[(i + 1) * wide + j] >= longest[i * wide + j + 1])) { found.push(["-", a[i]]); i += 1; }
    else { found.push(["+", b[j]]); j += 1; }
  }
  return found;
}

/** Shows the present view anew; the page itself says how. */
export const page = { show: () => {} };

export function head(...more) {
  return make("div", { class: "bar" }, make("span", { class: "path" }, showNamespace(state.namespace)), ...more);
}

export const below = (redraw) => make("label", {}, make("input", { type: "checkbox", checked: state.subtree, onchange: (event) => { state.subtree = event.target.checked; redraw(); } }), " with those below");

/** Have the arrow keys go through elements, and Enter open one. */
export function walkable(element, open, { next = "ArrowDown", before = "ArrowUp" } = {}) {
  element.addEventListener("click", open);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter") open();
    else if (event.key === next) element.nextElementSibling?.focus();
    else if (event.key === before) element.previousElementSibling?.focus();
    else return;
    event.preventDefault();
  });
  return element;
}
