"""The figures as a table and as a chart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contest.verdicts import Verdict

_GROUPS = ("ours", "as written", "serving layer", "floor")
_TITLES = {
    "ours": "ours",
    "as written": "as people write it",
    "serving layer": "with our DigitReader",
    "floor": "constant answer",
}


def table(results: dict[str, dict[str, Any]]) -> str:
    """A line for each contender and number of connections.

    Args:
        results: ``verdicts.medians`` by name, with ``group`` and ``site_packages_mb``.
    """
    width = max(len(name) for name in results)
    lines = [
        " " * width
        + "  conn.  requests/s     p50     p95     p99  failed  resident  first  install",
        f"{'':<{width}}{'ms':>26}{'ms':>8}{'ms':>8}{'MB':>18}{'s':>7}{'MB':>9}",
    ]
    for name in in_order(results):
        one = results[name]
        for i, (level, load) in enumerate(one["loads"].items()):
            line = (
                f"{'' if i else name:<{width}}  {level:>5}  {load['requests_per_second']:>10,.0f}"
                f"  {load['p50']:>6.1f}  {load['p95']:>6.1f}  {load['p99']:>6.1f}"
            )
            if not i:
                line += (
                    f"  {one['failed']:>6}  {one['memory_mb']['pss']:>8,.0f}"
                    f"  {one['first_answer_s']:>5.2f}  {one['site_packages_mb']:>7,.0f}"
                )
            lines.append(line)
    return "\n".join(lines)


def markdown(results: dict[str, dict[str, Any]]) -> str:
    """The main figures as a table for a document, a line for each contender.

    Args:
        results: as for ``table``.
    """
    levels = list(next(iter(results.values()))["loads"])
    head = ["", *(f"{level} conn." for level in levels), "p99 at 8", "resident", "first answer"]
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    for name in in_order(results):
        one = results[name]
        row = [f"**{name}**" if one["group"] == "ours" else name]
        row += [f"{one['loads'][level]['requests_per_second']:,.0f}/s" for level in levels]
        row += [f"{one['loads']['8']['p99']:.1f} ms", f"{one['memory_mb']['pss']:,.0f} MB"]
        lines.append([*row, f"{one['first_answer_s']:.2f} s"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def list_of(verdicts: list[Verdict]) -> str:
    """Each aim, met or not."""
    return "\n".join(
        f"{'met    ' if one.is_met else 'NOT MET'}  {one.aim}: {one.found}" for one in verdicts
    )


def in_order(results: dict[str, Any]) -> list[str]:
    """Names by group, and in a group the fastest at most connections first."""

    def key(name: str) -> tuple[int, float]:
        last = list(results[name]["loads"].values())[-1]
        return _GROUPS.index(results[name]["group"]), -last["requests_per_second"]

    return sorted(results, key=key)


def draw(results: dict[str, dict[str, Any]], caption: str, paths: list[Path]) -> None:
    """Requests a second of each, a panel for each number of connections.

    Args:
        results: as for ``table``.
        caption: hardware and n.
        paths: files to write, PNG.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    names = in_order(results)
    levels = list(results[names[0]]["loads"])
    colours = {
        "ours": "#c2410c",
        "as written": "#64748b",
        "serving layer": "#94a3b8",
        "floor": "#e2e8f0",
    }
    figure, axes = plt.subplots(
        1,
        len(levels),
        figsize=(10, 0.9 + 0.3 * len(names)),
        sharey=True,
        layout="constrained",
        squeeze=False,
    )
    for axis, level in zip(axes[0], levels, strict=True):
        rates = [results[name]["loads"][level]["requests_per_second"] for name in names]
        bars = axis.barh(names, rates, color=[colours[results[n]["group"]] for n in names])
        axis.bar_label(bars, labels=[f"{rate:,.0f}" for rate in rates], padding=3, fontsize=8)
        axis.set_xlim(0, 1.2 * max(rates))
        axis.set_xticks([])
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.set_title(f"{level} connection{'s' if level != '1' else ''}", fontsize=10)
    axes[0][0].invert_yaxis()
    for label, name in zip(axes[0][0].get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if results[name]["group"] == "ours" else "normal")
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=colours[group])
        for group in _GROUPS
        if any(results[name]["group"] == group for name in names)
    ]
    shown = [_TITLES[g] for g in _GROUPS if any(results[n]["group"] == g for n in names)]
    figure.legend(handles, shown, loc="outside lower center", ncols=len(shown), fontsize=8)
    figure.suptitle(f"Requests a second\n{caption}", fontsize=10)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    plt.close(figure)
