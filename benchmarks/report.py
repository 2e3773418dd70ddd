"""Turn the results into the tables of README.md and a chart: `python -m benchmarks.report`.

With `--quick` the tables of a quick run are printed, and README.md stays as it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.contenders import CONTENDERS, Bare, Contender, KVStore, Raw, optional

__all__ = ["main", "results_folder"]

HERE = Path(__file__).parent
KINDS: tuple[type[Contender], ...] = (*CONTENDERS, Bare)
TITLES = {kind.name: kind.title for kind in KINDS}
PEERS = [kind.name for kind in CONTENDERS if kind not in (KVStore, Raw)]
Results = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar, what was measured, and whether it holds."""

    bar: str
    limit: str
    measured: str
    holds: bool


# What kvstore promises: work, tasks, contender, factor. Against a contender the factor is its
# time by ours, at least; against raw sqlite3 our time by its time, at most.
BARS: tuple[tuple[str, int, str, float], ...] = (
    ("get", 1, "raw", 0.5),
    ("get", 1, "langgraph", 60),
    ("get", 1, "diskstore", 2),
    ("get", 100, "raw", 1.2),
    ("get", 100, "langgraph", 1.6),
    ("get", 100, "diskstore", 2.5),
    ("put", 1, "raw", 2.6),
    ("put", 1, "langgraph", 3),
    ("put", 1, "diskstore", 1),
    ("put", 100, "langgraph", 1.35),
    ("put", 1000, "langgraph", 1.1),
)
REMOVE_BY_RAW = 5.0  # a wildcard remove, by raw SQL's time
LATE_P999_MS, LATE_WORST_MS, COLD_WORST_MS = 1.0, 10.0, 25.0
OPEN_MS, SCAN_RSS_MIB = 50.0, 100.0
REMOVE_FACTOR = 2.0  # a wildcard remove, by raw SQL that deletes as many rows
# Cost of one namespace in the longest listing, by its cost among a hundred: those lie in SQLite's
# own page cache after the first round, and ten thousand do not. By the items it would be 100.
LIST_GROWTH = 3.0


GROUP_NAMES = ("cold", "core", "large", "loop", "million", "small")


def results_folder(quick: bool) -> Path:
    """Return where the results of such a run lie."""
    return HERE / "results" / "quick" if quick else HERE / "results"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="print a quick run's tables")
    folder = results_folder(quick := parser.parse_args(arguments).quick)
    results: Results = {}
    for name in GROUP_NAMES:  # other programs write here, too
        if (path := folder / f"{name}.json").exists():
            results[name] = orjson.loads(path.read_bytes())
    if not results:
        raise SystemExit("no results yet: run `python -m benchmarks.run`")
    verdicts = list(judge(results))
    parts = {
        "bars": bars_table(verdicts),
        "contenders": "\n".join(f"- **{kind.title}**: {kind.note}" for kind in KINDS),
        "circumstances": circumstances_table(results),
    }
    for name, result in results.items():
        parts[name] = "\n\n".join(section(result))
    draw(results, folder / "chart.png")
    if not quick:
        readme = HERE / "README.md"
        readme.write_text(splice(readme.read_text(), parts))
    for name in (n for n in parts if quick or n == "bars"):
        print(f"## {name}\n\n{parts[name]}\n")
    failed = sum(not verdict.holds for verdict in verdicts)
    print(f"{len(verdicts) - failed} of {len(verdicts)} bars hold.")


def splice(text: str, parts: dict[str, str]) -> str:
    """Put each part between its markers, `<!-- name -->` and `<!-- /name -->`."""
    for name, part in parts.items():
        pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"README.md has no place for the table {name!r}")
        text = pattern.sub(lambda match, part=part: f"{match[1]}\n{part}\n\n{match[2]}", text)  # type: ignore[misc]
    return text


# The bars


def judge(results: Results) -> Iterator[Verdict]:
    """Yield each bar that the results are enough for."""
    if "small" in results:
        for op, tasks, name, factor in BARS:
            row = find(results["small"], op, tasks)
            if row is not None and name in row["contenders"]:
                yield against(row, name, factor, results["small"]["title"])
    for group in ("small", "million"):
        for row in results.get(group, {}).get("rows", ()):
            if row["op"] == "remove":
                yield against(row, "raw", REMOVE_BY_RAW, results[group]["title"])
    for group in ("large", "million"):
        for name in ("langgraph", "diskstore"):
            rows = [r for r in results.get(group, {}).get("rows", ()) if name in r["contenders"]]
            if rows:
                worst = min(rows, key=lambda row: row["contenders"][name]["ratio"])
                ratio = worst["contenders"][name]["ratio"]
                yield Verdict(
                    f"any row, {results[group]['title']}, against {TITLES[name]}",
                    "never behind",
                    f"at worst {factor_text(ratio)}, {label(worst)}",
                    ratio >= 1,
                )
    yield from judge_loop(results)
    if "core" in results:
        yield from judge_core(results["core"])


def against(row: dict[str, Any], name: str, factor: float, where: str) -> Verdict:
    ratio = row["contenders"][name]["ratio"]
    bar = f"{label(row)}, {where}, against {TITLES[name]}"
    if name == Raw.name:
        text = f"{factor_text(1 / ratio)} its time"
        return Verdict(bar, f"at most {factor:g}x its time", text, 1 / ratio <= factor)
    limit = "level" if factor == 1 else f"{factor:g}x as fast"
    return Verdict(bar, limit, f"{factor_text(ratio)} as fast", ratio >= factor)


def judge_loop(results: Results) -> Iterator[Verdict]:
    for mode, data in results.get("loop", {}).get("modes", {}).items():
        ours = data["contenders"][KVStore.name]
        beyond, worst = ours["p999_beyond_ms"], ours["worst_ms"]
        yield Verdict(
            f"the loop, warm, {mode}: lateness beyond bare tasks at p99.9",
            f"under {LATE_P999_MS:g} ms",
            f"{beyond:.2f} ms",
            beyond < LATE_P999_MS,
        )
        yield Verdict(
            f"the loop, warm, {mode}: worst lateness",
            f"under {LATE_WORST_MS:g} ms",
            f"{worst:.2f} ms (bare tasks {data['contenders'][Bare.name]['worst_ms']:.2f} ms)",
            worst < LATE_WORST_MS,
        )
    if "cold" in results:
        cold = results["cold"]["modes"]["cold"]["contenders"]
        worst = cold[KVStore.name]["worst_ms"]
        yield Verdict(
            "the loop, cold: worst lateness",
            f"under {COLD_WORST_MS:g} ms",
            f"{worst:.2f} ms (bare tasks {cold[Bare.name]['worst_ms']:.2f} ms)",
            worst < COLD_WORST_MS,
        )


def judge_core(core: dict[str, Any]) -> Iterator[Verdict]:
    where = core["title"]
    opened = max(core["open_ms"], core["scan"]["first_open_ms"])
    yield Verdict(
        f"opening, {where}", f"under {OPEN_MS:g} ms", f"{opened:.1f} ms", opened < OPEN_MS
    )
    listed = sorted(
        (int(count), ms / int(count)) for count, ms in core["list_namespaces_ms"].items()
    )
    growth = listed[-1][1] / listed[-2][1]
    yield Verdict(
        f"listing {listed[-1][0]:,} namespaces, each against its cost among {listed[-2][0]:,}",
        f"at most {LIST_GROWTH:g}x",
        f"{growth:.2f}x",
        growth <= LIST_GROWTH,
    )
    times = list(core["remove_ms"].values())
    yield Verdict(
        "remove('temp_*') of 1,000 keys, by raw SQL deleting 1,000 rows",
        f"at most {REMOVE_FACTOR:g}x its time",
        f"{times[0] / times[2]:.2f}x its time",
        times[0] / times[2] <= REMOVE_FACTOR,
    )
    peak = core["scan"]["rss_peak_mib"]
    yield Verdict(
        f"memory through a scan of {core['scan']['items']:,} items",
        f"under {SCAN_RSS_MIB:g} MiB",
        f"{peak:.0f} MiB",
        peak < SCAN_RSS_MIB,
    )


# The tables


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def bars_table(verdicts: Sequence[Verdict]) -> str:
    return table(
        ["bar", "limit", "measured", "holds"],
        [[v.bar, v.limit, v.measured, "yes" if v.holds else "**no**"] for v in verdicts],
    )


def circumstances_table(results: Results) -> str:
    """Say once what all groups share, and for each group when and on which commit it ran."""
    last = max(results.values(), key=lambda result: result["measured_at"])
    about = {**last["machine"], **last["versions"]}
    rows = [[name.replace("_gib", ", GiB"), str(fact)] for name, fact in about.items()]
    for name, result in results.items():
        when = result["measured_at"][:16].replace("T", " ")
        method = result["method"]
        how = f"{method['rounds']} rounds of {method['seconds_each']:g} s"
        rows.append([f"group `{name}`", f"{when} UTC, commit {result['commit']}, {how}"])
    return table(["", ""], rows)


def section(result: dict[str, Any]) -> Iterator[str]:
    if "rows" in result:
        yield ratios_table(result)
        for name, why in result.get("left_out", {}).items():
            yield f"{TITLES[name]} is left out: {why}."
        if sizes := result.get("file_bytes"):
            listed = ", ".join(f"{TITLES[n]} {size / 2**20:,.1f}" for n, size in sizes.items())
            yield f"Size of the files afterwards, MiB: {listed}."
        details = f"<details><summary>Every figure: {result['title']}</summary>"
        yield "\n\n".join((details, figures_table(result), "</details>"))
    if "modes" in result:
        yield lateness_table(result)
    if "open_ms" in result:
        yield core_table(result)


def ratios_table(result: dict[str, Any]) -> str:
    head = ["work", "kvstore", "a second", "p50 / p99 / max", *(TITLES[n] for n in PEERS)]
    with_raw = any(Raw.name in row["contenders"] for row in result["rows"])
    rows = []
    for row in result["rows"]:
        ours = row["contenders"][KVStore.name]
        latency = " / ".join(duration(ours[name]) for name in ("p50_us", "p99_us", "max_us"))
        line = [label(row), duration(ours["us"]), rate(ours["per_second"]), latency]
        line += [peer_cell(row["contenders"].get(name)) for name in PEERS]
        if with_raw:
            line.append(raw_cell(row["contenders"].get(Raw.name)))
        rows.append(line)
    return table([*head, "kvstore ÷ raw sqlite3"] if with_raw else head, rows)


def peer_cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    text = f"{factor_text(figures['ratio'])}"
    if figures["ratio"] < 1:
        text = f"**{text}**"
    return f"{text} ({number(figures['ratio_low'])}-{number(figures['ratio_high'])})"


def raw_cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return "-"
    low, high = 1 / figures["ratio_high"], 1 / figures["ratio_low"]
    return f"{factor_text(1 / figures['ratio'])} ({number(low)}-{number(high)})"


def figures_table(result: dict[str, Any]) -> str:
    rows = []
    for row in result["rows"]:
        for name, figures in row["contenders"].items():
            latencies = [duration(figures[f"{at}_us"]) for at in ("p50", "p90", "p99", "max")]
            speed = [duration(figures["us"]), rate(figures["per_second"])]
            rows.append([label(row), TITLES[name], *speed, *latencies])
    return table(["work", "contender", "a call", "a second", "p50", "p90", "p99", "max"], rows)


def lateness_table(result: dict[str, Any]) -> str:
    rows = [
        [
            mode,
            TITLES[name],
            rate(late["per_second"]),
            f"{late['p50_ms']:.2f}",
            f"{late['p999_ms']:.2f}",
            "-" if name == Bare.name else f"{late['p999_beyond_ms']:+.2f}",
            f"{late['worst_ms']:.2f}",
        ]
        for mode, data in result["modes"].items()
        for name, late in data["contenders"].items()
    ]
    head = ["load", "contender", "calls a second", "p50", "p99.9", "beyond bare tasks", "worst"]
    return table(head, rows) + "\n\nLateness of a 1 ms timer, in milliseconds."


def core_table(core: dict[str, Any]) -> str:
    scan = core["scan"]
    listed = sorted(core["list_namespaces_ms"].items(), key=lambda pair: int(pair[0]))
    rows = [
        ["opening, first in a process", f"{scan['first_open_ms']:.1f} ms"],
        ["opening, again", f"{core['open_ms']:.1f} ms (worst {core['open_worst_ms']:.1f})"],
        *([f"list_namespaces, {int(n):,} of them", f"{ms:.2f} ms"] for n, ms in listed),
        *([f"1,000 keys: {way}", f"{ms:.2f} ms"] for way, ms in core["remove_ms"].items()),
        [f"scan of {scan['items']:,} items", f"{scan['seconds']:.1f} s, {scan['us']:.1f} µs each"],
        ["memory of that process before", f"{scan['rss_before_mib']:.0f} MiB"],
        ["at its peak", f"{scan['rss_peak_mib']:.0f} MiB"],
    ]
    return table(["", "kvstore"], rows)


# Words and numbers


def find(result: dict[str, Any], op: str, tasks: int) -> dict[str, Any] | None:
    rows = (row for row in result["rows"] if (row["op"], row["tasks"]) == (op, tasks))
    return next(rows, None)


def label(row: dict[str, Any]) -> str:
    names = {
        "mixed": "mixed 90/10",
        "put_many": "put_many, 100 items",
        "search": "search by filter",
        "remove": "remove('temp_*'), 100 keys",
    }
    name = names.get(row["op"], row["op"])
    return f"{name}, {row['tasks']} at once" if row["tasks"] > 1 else name


def number(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.1f}" if value >= 2 else f"{value:.2f}"


def factor_text(value: float) -> str:
    return f"{number(value)}x"


def duration(us: float) -> str:
    if us < 1000:
        return f"{us:.1f} µs" if us < 20 else f"{us:.0f} µs"
    return f"{us / 1e3:.1f} ms" if us < 20e3 else f"{us / 1e3:.0f} ms"


def rate(per_second: float) -> str:
    return f"{per_second / 1e3:.0f}k" if per_second >= 10_000 else f"{per_second:,.0f}"


# The chart

PANELS: tuple[tuple[str, str, int, str], ...] = (
    ("small", "get", 1, "get, one after another"),
    ("small", "put", 1, "put, one after another"),
    ("small", "mixed", 100, "90 % get, 100 at once"),
    ("small", "get", 100, "get, 100 at once"),
    ("small", "put", 100, "put, 100 at once"),
    ("small", "put_many", 1, "put_many, 100 items"),
    ("million", "search", 1, "search by filter (*)"),
    ("million", "list_namespaces", 1, "list 100 namespaces (*)"),
)
SHORT = {
    "langgraph": "LangGraph",
    "diskstore": "DiskStore",
    "aiosqlite": "aiosqlite",
    "tasks": "raw, in tasks",
    "bare": "no store",
}
OURS, THEIRS, LIMIT = "#0b6e4f", "#b8bfc6", "#d1495b"


def draw(results: Results, path: Path) -> None:
    """Draw small panels of bars, ours in colour; the limit set by raw sqlite3 is a line."""
    matplotlib = optional("matplotlib")
    matplotlib.use("Agg")
    figure, axes = optional("matplotlib.pyplot").subplots(3, 3, figsize=(12, 8.4))
    panels = [*(_time_panel(results, *panel) for panel in PANELS), _late_panel(results)]
    for axis, panel in zip(axes.flat, panels, strict=True):
        if panel is None:
            axis.axis("off")
            continue
        _draw_panel(axis, *panel)
    title = "Time of one call: shorter is better"
    figure.suptitle(title, x=0.01, ha="left", fontsize=15, weight="bold")
    first = next(iter(results.values()))
    versions = first["versions"]
    caption = (
        "Red line: raw sqlite3 with orjson, synchronous, the limit. 150-byte values, 1,000 items "
        f"(*: the large store). {first['machine']['cores']} cores, Python {versions['python']}, "
        f"SQLite {versions['sqlite']}, medians of interleaved rounds."
    )
    figure.text(0.01, 0.935, caption, fontsize=9, color="#555555")
    figure.tight_layout(rect=(0, 0, 1, 0.92), h_pad=2.0, w_pad=2.0)
    figure.savefig(path, dpi=110)


Panel = tuple[str, dict[str, float], float | None, Callable[[float], str]]


def _time_panel(results: Results, group: str, op: str, tasks: int, title: str) -> Panel | None:
    row = find(results[group], op, tasks) if group in results else None
    if row is None:
        return None
    times = {name: figures["us"] for name, figures in row["contenders"].items()}
    limit = times.pop(Raw.name, None)
    return title, times, limit, duration


def _late_panel(results: Results) -> Panel | None:
    if "loop" not in results:
        return None
    late = results["loop"]["modes"]["paced"]["contenders"]
    worst = {name: late[name]["worst_ms"] for name in TITLES if name in late}
    return "event loop: worst lateness", worst, None, "{:.1f} ms".format


def _draw_panel(
    axis: Any, title: str, bars: dict[str, float], limit: float | None, text: Callable[[float], str]
) -> None:
    names = list(reversed(bars))
    lengths = [bars[name] for name in names]
    colours = [OURS if name == KVStore.name else THEIRS for name in names]
    axis.barh([SHORT.get(name, name) for name in names], lengths, color=colours, height=0.72)
    for position, (name, length) in enumerate(zip(names, lengths, strict=True)):
        weight = "bold" if name == KVStore.name else "normal"
        label_at = length + max(lengths) * 0.015
        axis.text(label_at, position, text(length), va="center", fontsize=8.5, weight=weight)
    if limit is not None:
        axis.vlines(limit, -0.5, len(names) - 0.5, color=LIMIT, linewidth=1.5)
    axis.set_title(title, fontsize=10.5, loc="left", weight="bold")
    axis.set_xlim(0, max(lengths) * 1.22)
    axis.set_ylim(len(names) - 6.5, len(names) - 0.5)  # bars of one thickness, from the top
    axis.set_xticks([])
    axis.tick_params(axis="y", length=0, labelsize=8.5)
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(False)


if __name__ == "__main__":
    main()
