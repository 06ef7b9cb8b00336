"""Draws latency against log size from the results of P5: `python -m benchmarks.plot results.json docs/latency.svg`.

A plain SVG, both axes logarithmic, a line for each kind of page: the p95 in milliseconds. The kinds are those that differ most in how they
are answered; every figure is in the results.
"""

import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT = 860, 460
LEFT, TOP, RIGHT, BOTTOM = 70, 30, 330, 50
COLOURS = ("#1b6ca8", "#c0392b", "#1e8449", "#7d3c98", "#b9770e", "#117a65", "#5d6d7e", "#a93226")
SHOWN = (
    "no filter", "page 100", "server_id: a sample's", "actor: never seen", "action: gone for half the log", "q: quetzal-7731",
    "q: zephyr-0000", "q of two fragments that never meet",
)  # fmt: skip
_NAME = re.compile(r"([\d,]+) events: (.*): p95")
Series = Mapping[str, Mapping[int, float]]


def main() -> int:
    """Write the plot of a results file."""
    results, target = map(Path, sys.argv[1:3])
    found = series(json.loads(results.read_text("utf-8")))
    target.write_text(svg(found), "utf-8")
    return 0


def series(results: Mapping[str, Sequence[Mapping[str, object]]]) -> Series:
    """Kind of page → size of the log → p95 in milliseconds."""
    found: dict[str, dict[int, float]] = {}
    for section in results["sections"]:
        figures = section["figures"]
        assert isinstance(figures, list)
        for figure in figures:
            match = _NAME.fullmatch(figure["name"])
            if match and match[2] in SHOWN:
                found.setdefault(match[2], {})[int(match[1].replace(",", ""))] = float(figure["value"])
    return found


def svg(found: Series) -> str:
    """The picture."""
    sizes = sorted({size for line in found.values() for size in line})
    values = [value for line in found.values() for value in line.values()]
    low, high = 10 ** math.floor(math.log10(min(values))), 10 ** math.ceil(math.log10(max(values)))

    def x(size: float) -> float:
        span = math.log10(sizes[-1] / sizes[0]) or 1
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(size / sizes[0]) / span

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log10(value / low) / math.log10(high / low)

    parts = [_text(LEFT, 18, "p95 of a page in ms, by events in the log", bold=True)]
    tick = low
    while tick <= high:
        parts.append(f'<line x1="{LEFT}" y1="{y(tick):.1f}" x2="{WIDTH - RIGHT}" y2="{y(tick):.1f}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y(tick) + 4, f"{tick:g}", anchor="end"))
        tick *= 10
    parts += [_text(x(size), HEIGHT - BOTTOM + 20, f"{size:,}", anchor="middle") for size in sizes]
    for place, (name, line) in enumerate(sorted(found.items())):
        colour = COLOURS[place % len(COLOURS)]
        points = [(x(size), y(value)) for size, value in sorted(line.items())]
        drawn = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in points]
        parts.append(_text(WIDTH - RIGHT + 14, TOP + 20 + 22 * place, name, colour=colour))
    inner = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{inner}\n</svg>\n'
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = "#222", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>'


if __name__ == "__main__":
    sys.exit(main())
