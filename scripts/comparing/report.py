"""Medians and ratios of the runs, as a table, and as a chart."""

import statistics
from html import escape

from .rows import IDLE, ROWS

NAMES = {"nginx": "Nginx", "haproxy": "HAProxy", "ringwall": "ringwall", "node": "Node",
         "node-kept": "Node, kept connections", "bare": "bare TCP relay"}
COLOURS = {"nginx": "#9aa5b1", "haproxy": "#627d98", "ringwall": "#0b7a75",
           "bare": "#d3d9df"}


def summarise(results):
    """Of each row the medians of each proxy's runs, and what ringwall's are to
    each peer's."""
    summary = {}
    for name, by_proxy in results.items():
        skipped = ("answered", "handshakes", "errors")
        keys = [key for key in by_proxy["ringwall"][0] if key not in skipped]
        medians = {
            which: {key: statistics.median(run[key] for run in runs) for key in keys}
            for which, runs in by_proxy.items()
        }
        ratios = {
            peer: {key: medians["ringwall"][key] / value for key, value in values.items() if value}
            for peer, values in medians.items() if peer != "ringwall"
        }
        summary[name] = {"medians": medians, "ratios": ratios}
    return summary


def table(report):
    """Markdown, so that it can be pasted where figures are wanted."""
    machine, options, summary = report["machine"], report["options"], report["summary"]
    lines = [
        "",
        f"{', '.join(machine['proxies'])}; {machine['cpu']}, Linux {machine['kernel']}; "
        f"medians of {options['runs']} alternating runs of {options['seconds']:g} s.",
    ]
    loads = [name for name in summary if ROWS[name].load != IDLE]
    if loads:
        lines += [
            "",
            "| | proxy | requests/s | CPU µs/request | user | system | core used | p50 ms | p99 ms |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
    for name in loads:
        title = ROWS[name].title
        for which, m in summary[name]["medians"].items():
            lines.append(
                f"| {title} | {NAMES[which]} | {m['requests_per_second']:,.0f} | {m['cpu_us']:.1f} "
                f"| {m['user_us']:.1f} | {m['system_us']:.1f} | {m['core_used']:.0%} "
                f"| {m['p50_us'] / 1000:.2f} | {m['p99_us'] / 1000:.2f} |"
            )
            title = ""
        for peer, r in summary[name]["ratios"].items():
            def of(key):
                return f"{r[key]:.2f}" if key in r else "–"
            lines.append(
                f"| | **to {NAMES[peer]}** | **{of('requests_per_second')}** | **{of('cpu_us')}** "
                f"| {of('user_us')} | {of('system_us')} | {of('core_used')} | {of('p50_us')} "
                f"| {of('p99_us')} |"
            )
    idles = [name for name in summary if ROWS[name].load == IDLE]
    if idles:
        lines += [
            "",
            "| resident memory | proxy | KiB each | MiB before | MiB with them |",
            "|---|---|--:|--:|--:|",
        ]
    for name in idles:
        row = ROWS[name]
        title = f"{row.connections:,} times: {row.title}"
        for which, m in summary[name]["medians"].items():
            lines.append(
                f"| {title} | {NAMES[which]} | {m['resident_per_connection'] / 1024:.1f} "
                f"| {m['resident_before'] / 2**20:.1f} | {m['resident_after'] / 2**20:.1f} |"
            )
            title = ""
        for peer, r in summary[name]["ratios"].items():
            lines.append(
                f"| | **to {NAMES[peer]}** | **{r['resident_per_connection']:.2f}** "
                f"| {r['resident_before']:.2f} | {r['resident_after']:.2f} |"
            )
    return "\n".join(lines)


def chart(report):
    """An SVG of the cost of each row, the first peer's being 1."""
    summary = {
        name: entry for name, entry in report["summary"].items() if "nginx" in entry["medians"]
    }
    bar, gap, left, width, top = 14, 18, 370, 380, 64
    parts, y = [], top
    for name, entry in summary.items():
        key = "resident_per_connection" if ROWS[name].load == IDLE else "cpu_us"
        unit = entry["medians"]["nginx"][key]
        height = bar * len(entry["medians"])
        parts.append(f'<text x="{left - 10}" y="{y + height / 2 + 4}" text-anchor="end">'
                     f"{escape(ROWS[name].title)}</text>")
        for which, medians in entry["medians"].items():
            ratio = medians[key] / unit
            # One that is far behind must not make the others unreadable.
            length = min(ratio, 1.5) / 1.5 * width
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 2}" '
                         f'fill="{COLOURS[which]}"/>'
                         f'<text x="{left + length + 5:.1f}" y="{y + bar - 4}">{ratio:.2f}</text>')
            y += bar
        y += gap
    legend, x = [], left
    for which in sorted({which for entry in summary.values() for which in entry["medians"]},
                        key=list(NAMES).index):
        legend.append(f'<rect x="{x}" y="34" width="12" height="12" fill="{COLOURS[which]}"/>'
                      f'<text x="{x + 17}" y="44">{NAMES[which]}</text>')
        x += 110
    line = left + width / 1.5
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {y + 10}" '
        'font-family="sans-serif" font-size="12" fill="#243b53">',
        f'<rect width="{left + width + 60}" height="{y + 10}" fill="#ffffff"/>',
        f'<text x="{left}" y="20" font-weight="bold">CPU, or memory, of the proxy; Nginx = 1; '
        "less is better</text>",
        *legend, *parts,
        f'<line x1="{line:.1f}" y1="{top - 8}" x2="{line:.1f}" y2="{y - gap + 4}" stroke="#829ab1" '
        'stroke-dasharray="3 3"/>',
        "</svg>",
        "",
    ])


def brief(result):
    if "cpu_us" in result:
        return (f"{result['requests_per_second']:>9,.0f}/s  {result['cpu_us']:>8.1f} µs CPU  "
                f"core {result['core_used']:.0%}")
    return f"{result['resident_per_connection'] / 1024:.1f} KiB a connection"
