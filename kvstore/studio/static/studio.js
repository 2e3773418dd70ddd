// The studio's page. Whatever comes from the store is written as text nodes, never as markup;
// numbers are shown and sent as the text that they are, since those of JavaScript end at 2^53.

const $ = (selector, within = document) => within.querySelector(selector);

/** Make an element: attributes, then children, which are elements or texts. */
function make(tag, attributes = {}, ...children) {
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
const fill = (element, ...children) => element.replaceChildren(...children.filter((child) => child != null));
const svgTags = new Set(["rect", "text", "g", "title"]);

const state = { namespace: [], view: "items", edit: false, modes: [], subtree: false, order: "key", pattern: "", filter: "" };

// Asking the server

async function ask(path, params = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value == null || value === false || value === "") continue;
    query.set(name, typeof value === "string" ? value : JSON.stringify(value));
  }
  return answered(await fetch(`/api/${path}?${query}`));
}

async function change(path, body) {
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

function say(text, kind = "") {
  const said = $("#said");
  said.textContent = text;
  said.className = kind;
}

/** Run what the user asked for; an error is said, and ends nothing. */
const trying = (work) => async (...args) => {
  try { say(""); return await work(...args); } catch (error) { say(error.message, "bad"); }
};

// Writing what is shown

const showNamespace = (labels) => labels.length ? labels.map(visible).join(" / ") : "(root)";
const visible = (text) => text.replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
  (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);
const showTime = (text) => text == null ? "" : text.replace("T", " ").slice(0, 19);
const showCount = (number) => number.toLocaleString("en");

function showSize(bytes) {
  if (bytes == null) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
  return `${unit ? bytes.toFixed(1) : bytes} ${units[unit]}`;
}

// JSON as a tree; a parser of our own, so that each number stays as it is written

function parseJson(text) {
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

function jsonTree(node, name = null, depth = 0) {
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

// The tree of namespaces

async function openNode(item) {
  const group = $('ul[role="group"]', item) ?? item.appendChild(make("ul", { role: "group" }));
  if (!group.childElementCount) await addLabels(group, JSON.parse(item.dataset.namespace), 0);
  item.setAttribute("aria-expanded", "true");
  item.classList.toggle("leaf", !group.childElementCount);
}

async function addLabels(group, parent, offset) {
  const found = await ask("namespaces", { ns: parent, offset: String(offset) });
  for (const label of found.labels) group.append(treeItem([...parent, label], visible(label)));
  if (found.next != null) {
    const more = make("li", { role: "none" }, make("button", { onclick: trying(async () => {
      more.remove();
      await addLabels(group, parent, found.next);
    }) }, "more …"));
    group.append(more);
  }
}

function treeItem(namespace, label) {
  const item = make("li", { role: "treeitem", "aria-expanded": "false", "aria-selected": "false", tabindex: "-1", "data-namespace": JSON.stringify(namespace) },
    make("div", { class: "node" }, label));
  $(".node", item).addEventListener("click", trying(async (event) => {
    event.stopPropagation();
    if (item.getAttribute("aria-expanded") === "true" && item.getAttribute("aria-selected") === "true") item.setAttribute("aria-expanded", "false");
    else await openNode(item);
    select(item);
  }));
  return item;
}

function select(item) {
  for (const other of document.querySelectorAll('#tree [aria-selected="true"]')) other.setAttribute("aria-selected", "false");
  for (const other of document.querySelectorAll('#tree [tabindex="0"]')) other.tabIndex = -1;
  item.setAttribute("aria-selected", "true");
  item.tabIndex = 0;
  item.focus();
  state.namespace = JSON.parse(item.dataset.namespace);
  $("#detail").hidden = true;
  show();
}

function walkTree(event) {
  const item = event.target.closest('[role="treeitem"]');
  if (!item) return;
  const all = [...document.querySelectorAll('#tree [role="treeitem"]')].filter((each) => each.offsetParent);
  const at = all.indexOf(item);
  const isOpen = item.getAttribute("aria-expanded") === "true";
  const go = { ArrowDown: all[at + 1], ArrowUp: all[at - 1], Home: all[0], End: all.at(-1) }[event.key];
  if (go) go.focus();
  else if (event.key === "ArrowRight" && !isOpen) trying(openNode)(item);
  else if (event.key === "ArrowLeft" && isOpen) item.setAttribute("aria-expanded", "false");
  else if (event.key === "ArrowLeft") item.parentElement.closest('[role="treeitem"]')?.focus();
  else if (event.key === "Enter" || event.key === " ") select(item);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

// Items

const views = { items: showItems, search: showSearch, changes: showChanges, sizes: showSizes };
let hangUp = () => {};

function show() {
  hangUp();
  hangUp = () => {};
  trying(views[state.view])();
}

function head(...more) {
  return make("div", { class: "bar" }, make("span", { class: "path" }, showNamespace(state.namespace)), ...more);
}

const below = (redraw) => make("label", {}, make("input", { type: "checkbox", checked: state.subtree, onchange: (event) => { state.subtree = event.target.checked; redraw(); } }), " with those below");

async function showItems() {
  const rows = make("tbody"), columns = [];
  const heading = make("tr");
  const count = make("span", { class: "faint" });
  const table = make("table", {}, make("thead", {}, heading), rows);
  const orders = { key: "by key", latest: "latest first" };
  const order = make("select", { "aria-label": "Order", onchange: (event) => { state.order = event.target.value; show(); } },
    ...Object.entries(orders).map(([value, label]) => make("option", { value, selected: value === state.order }, label)));
  const again = () => show();
  const pattern = make("input", { type: "search", id: "filter", "aria-label": "Pattern of keys", placeholder: "keys such as temp_*", value: state.pattern, onchange: (event) => { state.pattern = event.target.value; again(); } });
  const filter = make("input", { type: "search", "aria-label": "Filter", placeholder: 'filter such as {"status": "open"}', value: state.filter, onchange: (event) => { state.filter = event.target.value; again(); } });
  const adding = state.edit ? make("button", { onclick: () => edit({ namespace: state.namespace, key: "", version: 0, text: "null", is_whole: true }) }, "New item") : null;
  const more = make("button", { hidden: true, onclick: trying(() => page()) }, "More");
  fill($("#view"), head(count, adding), make("div", { class: "bar" }, state.order === "key" ? pattern : null, filter, order, below(again)), table, more);
  let next = null, isFirst = true;

  async function page() {
    const asked = { ns: state.namespace, subtree: state.subtree ? "1" : "", order: state.order, filter: state.filter };
    if (state.order === "key") Object.assign(asked, { pattern: state.pattern, after: next });
    else asked.offset = String(next ?? 0);
    const found = await ask("items", asked);
    if (isFirst) {
      for (const item of found.items) for (const name of Object.keys(item.fields)) if (!columns.includes(name) && columns.length < 6) columns.push(name);
      heading.append(...(state.subtree ? [make("th", {}, "namespace")] : []), make("th", {}, "key"),
        ...columns.map((name) => make("th", {}, visible(name))),
        ...(columns.length ? [] : [make("th", {}, "value")]), make("th", {}, "written"), make("th", {}, "size"));
    }
    isFirst = false;
    next = found.next;
    more.hidden = next == null;
    rows.append(...found.items.map((item) => itemRow(item, columns)));
    if (!rows.childElementCount) rows.append(make("tr", {}, make("td", { class: "faint", colspan: "9" }, "nothing here")));
  }
  await page();
  const counted = await ask("count", { ns: state.namespace, pattern: state.pattern, subtree: state.subtree ? "1" : "" });
  count.textContent = `${showCount(counted.count)}${counted.is_more ? "+" : ""} items`;
}

function itemRow(item, columns) {
  const row = make("tr", { tabindex: "0", "aria-selected": "false" },
    ...(state.subtree ? [make("td", { class: "faint" }, showNamespace(item.namespace))] : []),
    make("td", {}, visible(item.key) || '""'),
    ...columns.map((name) => make("td", {}, visible(item.fields[name] ?? ""))),
    ...(columns.length ? [] : [make("td", {}, make("code", {}, visible(item.preview)))]),
    make("td", { class: "faint" }, showTime(item.updated_at)), make("td", { class: "number faint" }, showSize(item.size)));
  const open = trying(() => openItem(item, row));
  row.addEventListener("click", open);
  row.addEventListener("keydown", (event) => {
    if (event.key === "Enter") open();
    else if (event.key === "ArrowDown") row.nextElementSibling?.focus();
    else if (event.key === "ArrowUp") row.previousElementSibling?.focus();
    else return;
    event.preventDefault();
  });
  return row;
}

async function openItem(item, row) {
  for (const other of document.querySelectorAll('tr[aria-selected="true"]')) other.setAttribute("aria-selected", "false");
  row?.setAttribute("aria-selected", "true");
  showDetail(await ask("item", { ns: item.namespace, key: item.key }));
}

function showDetail(item) {
  const detail = $("#detail");
  detail.hidden = false;
  const address = new URLSearchParams({ ns: JSON.stringify(item.namespace), key: item.key });
  const tree = make("div", { class: "json" });
  const text = make("pre", { hidden: true }, visibleLines(item.text));
  if (item.is_whole) tree.append(jsonTree(parseJson(item.text)));
  else { text.hidden = false; tree.hidden = true; }
  const toggle = make("button", { hidden: !item.is_whole, onclick: () => { tree.hidden = !tree.hidden; text.hidden = !text.hidden; } }, "Tree / JSON");
  fill(detail, 
    make("div", { class: "bar" }, make("span", { class: "path" }, `${showNamespace(item.namespace)} · ${visible(item.key) || '""'}`), make("button", { onclick: closeDetail, "aria-label": "Close" }, "✕")),
    make("dl", {}, ...[["version", String(item.version)], ["created", showTime(item.created_at)], ["written", showTime(item.updated_at)],
      ...(item.expires_at ? [["expires", showTime(item.expires_at)]] : []), ["size", showSize(item.size)]].flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    make("div", { class: "bar" }, toggle,
      make("button", { onclick: trying(async () => { await navigator.clipboard.writeText(item.text); say("copied"); }) }, "Copy"),
      make("a", { href: `/api/value?${address}`, download: "value.json" }, "Download"),
      ...(state.edit ? [make("button", { class: "main", disabled: !item.is_whole, onclick: () => edit(item) }, "Edit"), make("button", { class: "bad", onclick: trying(() => remove(item)) }, "Delete")] : [])),
    item.is_whole ? null : make("p", { class: "faint" }, "This is its beginning; download it to see the whole value."),
    tree, text);
}

const visibleLines = (text) => text.split("\n").map(visible).join("\n");

function closeDetail() {
  $("#detail").hidden = true;
  $('tr[aria-selected="true"]')?.focus();
}

function edit(item) {
  const detail = $("#detail");
  detail.hidden = false;
  const isNew = item.version === 0;
  const key = make("input", { type: "text", value: item.key, "aria-label": "Key", readonly: !isNew });
  const area = make("textarea", { spellcheck: "false", "aria-label": "Value as JSON" });
  area.value = item.text;
  const save = trying(async () => {
    const body = { namespace: item.namespace, key: key.value, text: area.value, if_version: item.version };
    const written = await change("put", body);
    say(`written at version ${written.version}`, "good");
    await openItem(written);
    show();
  });
  fill(detail, 
    make("div", { class: "bar" }, make("span", { class: "path" }, showNamespace(item.namespace)), key),
    area,
    make("div", { class: "bar" }, make("button", { class: "main", onclick: save }, "Save"), make("button", { onclick: () => isNew ? closeDetail() : showDetail(item) }, "Cancel"),
      make("span", { class: "faint" }, isNew ? "only if the key is free" : `only over version ${item.version}`)));
  (isNew ? key : area).focus();
}

async function remove(item) {
  if (!confirm(`Delete ${showNamespace(item.namespace)} · ${item.key}?`)) return;
  await change("delete", { namespace: item.namespace, key: item.key, if_version: item.version });
  closeDetail();
  show();
  say("deleted", "good");
}

// The search playground: the same question in every way, and where each item came in each

async function showSearch() {
  const query = make("input", { type: "search", id: "filter", "aria-label": "Question", placeholder: "a question, or words" });
  const filter = make("input", { type: "search", "aria-label": "Filter", placeholder: 'filter such as {"status": "open"}' });
  const result = make("div");
  const run = trying(async () => {
    if (!query.value) return;
    const began = performance.now();
    const found = await ask("search", { ns: state.namespace, query: query.value, filter: filter.value, subtree: state.subtree ? "1" : "" });
    const rows = found.items.map((item) => {
      const row = itemRow({ ...item, fields: {} }, []);
      for (const mode of found.modes) {
        const rank = item.ranks[mode];
        row.append(make("td", { class: "number" }, rank ? `${rank[0]}${rank[1] == null ? "" : ` · ${rank[1].toFixed(3)}`}` : "–"));
      }
      return row;
    });
    const heads = [...(state.subtree ? ["namespace"] : []), "key", "value", "written", "size", ...found.modes.map((mode) => ({ auto: "found", text: "by words", semantic: "by meaning", hybrid: "fused" })[mode])];
    fill(result, 
      ...Object.entries(found.errors).map(([mode, said]) => make("p", { class: "bad" }, `${mode}: ${said}`)),
      make("p", { class: "faint" }, `${found.items.length} found in ${Math.round(performance.now() - began)} ms; each column: rank · score`),
      make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((each) => make("th", {}, each)))), make("tbody", {}, ...rows)));
  });
  for (const field of [query, filter]) field.addEventListener("change", run);
  fill($("#view"), head(), make("div", { class: "bar" }, query, filter, make("button", { class: "main", onclick: run }, "Search"), below(run)), result);
  query.focus();
}

// Changes, as they come

const CHANGES_SHOWN = 500;

async function showChanges() {
  const rows = make("tbody");
  const status = make("span", { class: "faint" });
  fill($("#view"), head(status), make("table", {}, make("thead", {}, make("tr", {}, ...["version", "what", "namespace", "key", "value"].map((each) => make("th", {}, each)))), rows));
  let source = null;
  const listen = () => {
    if (document.hidden || source) return;
    source = new EventSource(`/api/changes?${new URLSearchParams({ ns: JSON.stringify(state.namespace) })}`);
    source.onopen = () => { status.textContent = "listening"; };
    source.onerror = () => { status.textContent = "the store does not answer"; };
    source.onmessage = (event) => {
      const told = JSON.parse(event.data);
      rows.prepend(make("tr", {}, make("td", { class: "number" }, String(told.version)), make("td", { class: told.kind === "put" ? "good" : "bad" }, told.kind), make("td", {}, showNamespace(told.namespace)), make("td", {}, visible(told.key)), make("td", {}, make("code", {}, visible(told.preview ?? "")))));
      while (rows.childElementCount > CHANGES_SHOWN) rows.lastElementChild.remove();
    };
  };
  const pause = () => { source?.close(); source = null; status.textContent = "paused"; };
  const turn = () => document.hidden ? pause() : listen();
  document.addEventListener("visibilitychange", turn);
  hangUp = () => { document.removeEventListener("visibilitychange", turn); pause(); };
  listen();
}

// Sizes

async function showSizes() {
  const stats = await ask("stats");
  const facts = [["items", showCount(stats.items)], ["namespaces", showCount(stats.namespaces)], ["values", showSize(stats.bytes)],
    ["file", showSize(stats.file_bytes)], ["write-ahead log", showSize(stats.wal_bytes)], ["expired, waiting for the sweep", showCount(stats.expired)],
    ["indexed", stats.indexed == null ? "no index" : showCount(stats.indexed)], ["changes kept", showCount(stats.changes)], ["version", showCount(stats.version)]];
  fill($("#view"), make("div", { class: "bar" }, make("span", { class: "path" }, "The whole store")),
    make("dl", {}, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    bars("Bytes by root namespace", stats.roots.map((root) => [root.label, root.bytes, `${showSize(root.bytes)} in ${showCount(root.items)} items`])));
}

function bars(title, rows) {
  const most = Math.max(1, ...rows.map(([, value]) => value));
  const height = 26 * rows.length + 8;
  const chart = make("svg", { width: "100%", height, role: "img", "aria-label": title }, make("title", {}, title));
  rows.forEach(([label, value, said], at) => {
    const y = 26 * at + 4;
    chart.append(make("text", { x: 0, y: y + 14 }, visible(label).slice(0, 24) || "(root)"),
      make("rect", { x: 170, y, width: `${Math.max(0.2, (46 * value) / most)}%`, height: 18, rx: 3 }),
      make("text", { x: "74%", y: y + 14, class: "faint" }, said));
  });
  return make("figure", {}, make("figcaption", { class: "faint" }, title), chart);
}

// The whole page

document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && !$("#detail").hidden) closeDetail();
  else if (event.key === "/" && !isTyping) { $("#filter")?.focus(); event.preventDefault(); }
});
$("#tree").addEventListener("keydown", walkTree);
for (const tab of document.querySelectorAll('[role="tab"]')) {
  tab.addEventListener("click", () => {
    for (const other of document.querySelectorAll('[role="tab"]')) other.setAttribute("aria-selected", String(other === tab));
    state.view = tab.dataset.view;
    $("#detail").hidden = true;
    show();
  });
}
trying(async () => {
  const about = await ask("store");
  Object.assign(state, { edit: about.edit, modes: about.modes });
  $("#store").textContent = about.store;
  $("#mode").textContent = about.edit ? "editing" : "read-only";
  const root = treeItem([], "(root)");
  $("#tree").append(root);
  await openNode(root);
  select(root);
})();
