// The table of items, and one of them: its value, its past, and how it is edited.

import { $, ask, below, change, countOf, differences, fill, head, jsonTree, make, page, parseJson, say, showNamespace, showSize, showTime, state, trying, visible, walkable } from "./base.js";

export async function showItems() {
  const rows = make("tbody"), columns = [];
  const heading = make("tr");
  const count = make("span", { class: "faint" });
  const table = make("table", {}, make("thead", {}, heading), rows);
  const orders = { key: "by key", latest: "latest first", created_at: "oldest first", "-created_at": "newest first", expires_at: "by expiry", version: "by version" };
  if (!(state.order in orders)) orders[state.order] = `by ${visible(state.order)}`;
  const order = make("select", { "aria-label": "Order", onchange: (event) => { state.order = event.target.value; page.show(); } },
    ...Object.entries(orders).map(([value, label]) => make("option", { value, selected: value === state.order }, label)));
  const again = () => page.show();
  const pattern = make("input", { type: "search", id: "filter", "aria-label": "Pattern of keys", placeholder: "keys such as temp_*", value: state.pattern, onchange: (event) => { state.pattern = event.target.value; again(); } });
  const filter = make("input", { type: "search", "aria-label": "Filter", placeholder: 'filter such as {"status": "open"}', value: state.filter, onchange: (event) => { state.filter = event.target.value; again(); } });
  const adding = state.edit ? make("button", { onclick: () => edit({ namespace: state.namespace, key: "", version: 0, text: "null", is_whole: true }) }, "New item") : null;
  const more = make("button", { hidden: true, onclick: trying(() => nextPage()) }, "More");
  fill($("#view"), head(count, adding), make("div", { class: "bar" }, state.order === "key" ? pattern : null, filter, order, below(again)), table, more);
  let next = null, isFirst = true;

  async function nextPage() {
    const asked = { ns: state.namespace, subtree: state.subtree ? "1" : "", order: state.order, filter: state.filter };
    if (state.order === "key") Object.assign(asked, { pattern: state.pattern, after: next });
    else asked.offset = String(next ?? 0);
    const found = await ask("items", asked);
    if (isFirst) {
      for (const item of found.items) for (const name of Object.keys(item.fields)) if (!columns.includes(name) && columns.length < 6) columns.push(name);
      heading.append(...(state.subtree ? [make("th", {}, "namespace")] : []), sortable("key", "key"),
        ...columns.map((name) => sortable(visible(name), pathOf(name))),
        ...(columns.length ? [] : [make("th", {}, "value")]), sortable("written", "updated_at"), make("th", {}, "size"));
    }
    isFirst = false;
    next = found.next;
    more.hidden = next == null;
    rows.append(...found.items.map((item) => itemRow(item, columns)));
    if (!rows.childElementCount) rows.append(make("tr", {}, make("td", { class: "faint", colspan: "9" }, "nothing here")));
  }
  await nextPage();
  const counted = await ask("count", { ns: state.namespace, pattern: state.pattern, subtree: state.subtree ? "1" : "" });
  count.textContent = countOf(counted.count, "item", counted.is_more ? "+" : "");
}

const pathOf = (name) => `$.${JSON.stringify(name)}`;

/** A heading by which the table is sorted, one way and the other. */
function sortable(label, order) {
  const rising = order, falling = order === "key" ? "-key" : `-${order}`;
  const now = state.order === rising ? "ascending" : state.order === falling ? "descending" : "none";
  const sign = { ascending: " ↑", descending: " ↓", none: "" }[now];
  const sort = () => { state.order = state.order === rising ? falling : rising; page.show(); };
  return make("th", { "aria-sort": now }, make("button", { onclick: sort }, `${label}${sign}`));
}

export function itemRow(item, columns) {
  const row = make("tr", { tabindex: "0", "aria-selected": "false" },
    ...(state.subtree ? [make("td", { class: "faint" }, showNamespace(item.namespace))] : []),
    make("td", {}, visible(item.key) || '""'),
    ...columns.map((name) => make("td", {}, visible(item.fields[name] ?? ""))),
    ...(columns.length ? [] : [make("td", {}, make("code", {}, visible(item.preview)))]),
    make("td", { class: "faint" }, showTime(item.updated_at)), make("td", { class: "number faint" }, showSize(item.size)));
  return walkable(row, trying(() => openItem(item, row)));
}

export async function openItem(item, row) {
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
    tree, text, historyOf(item));
}

/** The past of an item, which is asked for when it is unfolded. */
function historyOf(item) {
  const box = make("details", { class: "history" }, make("summary", {}, "History"));
  box.addEventListener("toggle", trying(async () => {
    const { changes } = await ask("history", { ns: item.namespace, key: item.key });
    const shown = changes.map((each, at) => {
      const older = changes[at + 1];
      const told = `version ${each.version} · ${showTime(each.at)} · ${each.kind}`;
      return make("details", { open: at === 0 }, make("summary", {}, told), differencesOf(each, older));
    });
    box.append(...shown, ...(changes.length > 1 ? [] : [make("p", { class: "faint" },
      "No older version is kept. A store that is opened with history=… keeps what is replaced and deleted.")]));
  }), { once: true });
  return box;
}

function differencesOf(newer, older) {
  if (newer.text == null) return make("p", { class: "faint" }, "gone, or its value is not kept");
  if (older?.text == null) return make("pre", {}, visibleLines(newer.text));
  const kinds = { " ": "", "-": "bad", "+": "good" };
  return make("pre", {}, ...differences(older.text, newer.text).map(([sign, line]) => make("div", { class: kinds[sign] }, `${sign} ${visible(line)}`)));
}

const visibleLines = (text) => text.split("\n").map(visible).join("\n");

export function closeDetail() {
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
    page.show();
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
  page.show();
  say("deleted", "good");
}
