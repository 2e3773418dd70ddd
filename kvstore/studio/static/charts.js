// What is drawn: sizes, when items came and will go, and a map of the vectors. Plain SVG.

import { $, ask, countOf, fill, head, make, showCount, showNamespace, showSize, state, trying, visible, walkable } from "./base.js";
import { openItem } from "./items.js";

export async function showSizes() {
  const [stats, charts] = await Promise.all([ask("stats"), ask("charts", { ns: state.namespace })]);
  const facts = [["items", showCount(stats.items)], ["namespaces", showCount(stats.namespaces)], ["values", showSize(stats.bytes)],
    ["file", showSize(stats.file_bytes)], ["write-ahead log", showSize(stats.wal_bytes)], ["expired, waiting for the sweep", showCount(stats.expired)],
    ["indexed", stats.indexed == null ? "no index" : showCount(stats.indexed)], ["changes kept", showCount(stats.changes)], ["version", showCount(stats.version)]];
  fill($("#view"), make("div", { class: "bar" }, make("span", { class: "path" }, "The whole store")),
    make("dl", {}, ...facts.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    bars("Bytes by root namespace", stats.roots.slice(0, ROOTS_DRAWN).map((root) => [root.label, root.bytes, `${showSize(root.bytes)} in ${countOf(root.items, "item")}`])),
    make("div", { class: "bar" }, make("span", { class: "path" }, showNamespace(state.namespace)), make("span", { class: "faint" }, `and all below it: ${charts.is_more ? "the first " : ""}${countOf(charts.of, "item")}`)),
    growth(charts.growth),
    bars("Items by the size of their values", charts.sizes.map(([most, count]) => [`to ${showSize(most)}`, count, showCount(count)])),
    bars("Items by expiry", charts.expiry.map(([name, count]) => [name, count, showCount(count)])));
}

const ROOTS_DRAWN = 20;
const nameOf = (label) => label == null ? "others" : visible(label) || "(here)";
const legend = (names) => make("p", { class: "legend" }, ...names.map((name, at) => make("span", { class: `c${at}` }, `■ ${nameOf(name)}`)));

/** Columns of the items by when they were made, one colour for each namespace. */
function growth({ begin, end, groups }) {
  const title = "Items by when they were made";
  if (!groups.length) return make("p", { class: "faint" }, "no items");
  const columns = groups[0].counts.map((_, at) => groups.map((group) => group.counts[at]));
  const most = Math.max(1, ...columns.map((each) => each.reduce((a, b) => a + b)));
  const chart = make("svg", { viewBox: "0 0 720 180", role: "img", "aria-label": title, class: "growth" }, make("title", {}, title));
  columns.forEach((column, at) => {
    let y = 160;
    column.forEach((count, group) => {
      const height = (150 * count) / most;
      y -= height;
      if (count) chart.append(make("rect", { x: 30 * at + 1, y, width: 28, height, class: `c${group}` }, make("title", {}, `${nameOf(groups[group].label)}: ${showCount(count)}`)));
    });
  });
  const day = (seconds) => new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 16);
  chart.append(make("text", { x: 0, y: 176, class: "faint" }, day(begin)), make("text", { x: 720, y: 176, class: "faint", "text-anchor": "end" }, day(end)));
  return make("figure", {}, make("figcaption", { class: "faint" }, `${title}; the highest column: ${showCount(most)}`), chart, legend(groups.map((group) => group.label)));
}

/** The map: what means the same lies near. */
export async function showMap() {
  const found = await ask("map", { ns: state.namespace });
  if (!found.points.length) {
    fill($("#view"), head(), make("p", { class: "faint" }, "No vectors here. A store that was opened with a model has some: index=IndexConfig(model)."));
    return;
  }
  const title = "Map of the vectors";
  const chart = make("svg", { viewBox: "-1 -1 102 102", role: "group", "aria-label": title, class: "map" });
  found.points.forEach((point, at) => {
    const name = `${showNamespace(point.namespace)} · ${visible(point.key)}`;
    const dot = make("circle", { cx: 100 * point.at[0], cy: 100 - 100 * point.at[1], r: 0.8, class: `c${point.group}`, tabindex: at ? "-1" : "0", role: "button", "aria-label": name }, make("title", {}, name));
    chart.append(walkable(dot, trying(() => openItem(point)), { next: "ArrowRight", before: "ArrowLeft" }));
  });
  fill($("#view"), head(make("span", { class: "faint" }, `${countOf(found.points.length, "item")}; two directions tell ${Math.round(100 * found.kept)} % of the differences`)),
    chart, legend(found.groups));
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
