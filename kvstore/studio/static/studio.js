// The studio's page: the tree of namespaces, and a view of the one that is chosen.

import { $, ask, below, change, fill, head, make, page, say, showCount, showNamespace, state, trying, visible, walkable } from "./base.js";
import { showMap, showSizes } from "./charts.js";
import { closeDetail, itemRow, showItems } from "./items.js";

const views = { items: showItems, search: showSearch, lines: showLines, changes: showChanges, sizes: showSizes, map: showMap };
let hangUp = () => {};

function show() {
  hangUp();
  hangUp = () => {};
  trying(views[state.view])();
}
page.show = show;

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
      if (found.words.length) row.append(make("td", { class: "holds" }, ...found.words.map((word) => make(item.words.includes(word) ? "b" : "s", {}, visible(word))).flatMap((each) => [each, " "])));
      for (const mode of found.modes) {
        const rank = item.ranks[mode];
        row.append(make("td", { class: "number" }, rank ? `${rank[0]}${rank[1] == null ? "" : ` · ${rank[1].toFixed(3)}`}` : "–"));
      }
      return row;
    });
    const heads = [...(state.subtree ? ["namespace"] : []), "key", "value", "written", "size", ...(found.words.length ? ["holds"] : []), ...found.modes.map((mode) => ({ auto: "found", text: "by words", semantic: "by meaning", hybrid: "fused" })[mode])];
    fill(result, 
      ...Object.entries(found.errors).map(([mode, said]) => make("p", { class: "bad" }, `${mode}: ${said}`)),
      make("p", { class: "faint" }, `${found.items.length} found in ${Math.round(performance.now() - began)} ms; each column: rank · score`),
      make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((each) => make("th", {}, each)))), make("tbody", {}, ...rows)));
  });
  for (const field of [query, filter]) field.addEventListener("change", run);
  fill($("#view"), head(), make("div", { class: "bar" }, query, filter, make("button", { class: "main", onclick: run }, "Search"), below(run)), result);
  query.focus();
}

// Logs and queues

async function showLines() {
  const rows = make("tbody"), more = make("button", { hidden: true, onclick: trying(() => nextPage()) }, "More");
  const heads = ["namespace", "what", "entries", "ready", "delayed", "leased", "dead", "last position"];
  fill($("#view"), head(make("span", { class: "faint" }, "and below")), make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((each) => make("th", {}, each)))), rows), more);
  let next = 0;
  const number = (value) => make("td", { class: "number" }, value == null ? "" : showCount(value));
  async function nextPage() {
    const found = await ask("sequences", { ns: state.namespace, offset: String(next) });
    next = found.next;
    more.hidden = next == null;
    rows.append(...found.sequences.map((line) => walkable(
      make("tr", { tabindex: "0" }, make("td", {}, showNamespace(line.namespace)), make("td", {}, line.kind), number(line.length),
        number(line.ready), number(line.delayed), number(line.leased), make("td", { class: line.dead ? "number bad" : "number" }, line.dead == null ? "" : showCount(line.dead)), number(line.last)),
      trying(() => line.kind === "queue" ? showDead(line) : go(line.namespace)))));
    if (!rows.childElementCount) rows.append(make("tr", {}, make("td", { class: "faint", colspan: "8" }, "no logs and no queues here")));
  }
  await nextPage();
}

/** Show the items of a namespace: the entries of a log are such. */
function go(namespace) {
  state.namespace = namespace;
  state.order = "key";
  turnTo("items");
}

async function showDead(line) {
  const { jobs } = await ask("dead", { ns: line.namespace });
  const revive = (ids) => trying(async () => {
    const { revived } = await change("revive", { namespace: line.namespace, ids });
    say(`${revived} revived`, "good");
    await showDead(line);
    page.show();
  });
  const detail = $("#detail");
  detail.hidden = false;
  fill(detail, make("div", { class: "bar" }, make("span", { class: "path" }, showNamespace(line.namespace)), make("button", { onclick: closeDetail, "aria-label": "Close" }, "✕")),
    make("div", { class: "bar" }, make("button", { onclick: () => { closeDetail(); go(line.namespace); } }, "Its jobs"),
      state.edit && jobs.length ? make("button", { class: "main", onclick: revive(jobs.map((job) => job.id)) }, "Revive all") : null),
    make("p", { class: "faint" }, jobs.length ? "Given up after their last attempt:" : "No job was given up."),
    ...jobs.map((job) => make("section", {}, make("div", { class: "bar" }, make("b", {}, `job ${Number(job.id)}`), make("span", { class: "faint" }, `${job.attempt} attempts`), state.edit ? make("button", { onclick: revive([job.id]) }, "Revive") : null),
      make("pre", { class: "bad" }, visible(job.error ?? "")), make("pre", {}, visible(job.preview)))));
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

// The whole page

document.addEventListener("keydown", (event) => {
  const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
  if (event.key === "Escape" && !$("#detail").hidden) closeDetail();
  else if (event.key === "/" && !isTyping) { $("#filter")?.focus(); event.preventDefault(); }
});
$("#tree").addEventListener("keydown", walkTree);
function turnTo(view) {
  for (const tab of document.querySelectorAll('[role="tab"]')) tab.setAttribute("aria-selected", String(tab.dataset.view === view));
  state.view = view;
  $("#detail").hidden = true;
  show();
}

for (const tab of document.querySelectorAll('[role="tab"]')) tab.addEventListener("click", () => turnTo(tab.dataset.view));
trying(async () => {
  const about = await ask("store");
  Object.assign(state, { edit: about.edit, modes: about.modes });
  $("#store").textContent = about.store.replace(/'(?!\w+:\/\/)[^']*[/\\]([^'/\\]+)'/, "'$1'"); // the name alone
  $("#store").title = about.store;
  $("#mode").textContent = about.edit ? "editing" : "read-only";
  const root = treeItem([], "(root)");
  $("#tree").append(root);
  await openNode(root);
  select(root);
})();
