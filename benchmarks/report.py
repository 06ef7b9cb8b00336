"""What a benchmark found: figures with their goals, as a table for people and as JSON for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


class BenchmarkError(Exception):
    """The benchmark itself went wrong, so there is no figure: what it measured did not do its work."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. With a `goal` it is reached when it is at least that, or at most; `share` is its part of some whole, 0 to 1."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    share: float | None = None
    at_most: bool = False  # the goal is an upper bound

    @property
    def verdict(self) -> str:
        """`reached` or `not reached`; empty without a goal. Compared as it is, not as it is rounded for the table."""
        if self.goal is None:
            return ""
        holds = self.value <= self.goal if self.at_most else self.value >= self.goal
        return "reached" if holds else "not reached"

    @property
    def shown_goal(self) -> str:
        """The goal as the table prints it."""
        return "" if self.goal is None else f"{'≤' if self.at_most else '≥'} {self.goal:g}"

    @property
    def shown(self) -> str:
        """The value as the table prints it. A ratio is cut, not rounded: 0.799 must not read as the 0.80 it missed."""
        if self.unit == "ratio":
            return f"{int(self.value * 1000) / 1000:.3f}"
        places = 0 if abs(self.value) >= 1000 else 1 if abs(self.value) >= 10 else 2
        share = "" if self.share is None else f" ({self.share:.1%})"
        return f"{self.value:,.{places}f} {self.unit}{share}"


@dataclass(frozen=True, slots=True)
class Section:
    """The figures of one benchmark, and what a reader must know about them."""

    key: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The section with the verdicts spelled out."""
        figures = [asdict(figure) | {"verdict": figure.verdict or None} for figure in self.figures]
        return {"key": self.key, "title": self.title, "figures": figures, "notes": self.notes}


def ratio(name: str, ours: float, baseline: float, goal: float | None = None) -> Figure:
    """Our rate ÷ the baseline's."""
    return Figure(name, ours / baseline, "ratio", goal)


def counted(count: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count} {noun}" + "s" * (count != 1)


def format_section(section: Section) -> str:
    """The section as a Markdown table with its notes below."""
    header = ("figure", "value", "goal", "verdict")
    lines = [(item.name, item.shown, item.shown_goal, item.verdict) for item in section.figures]
    return "\n".join([f"\n## {section.title}\n", *table(header, lines), *(f"\n{note}" for note in section.notes)])


def format_verdicts(sections: list[Section]) -> str:
    """Every figure that has a goal, misses included."""
    lines = [
        (section.key, item.name, item.shown, item.shown_goal, item.verdict)
        for section in sections
        for item in section.figures
        if item.goal is not None
    ]
    if not lines:
        return "\n(No goal is set for what was measured.)"
    return "\n".join(["\n## Goals\n", *table(("#", "figure", "value", "goal", "verdict"), lines)])


def table(header: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> list[str]:
    """A Markdown table whose columns also line up as plain text."""
    rows = [header, *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return [padded[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *padded[1:]]


def write_json(path: Path, facts: dict[str, Any], sections: list[Section]) -> None:
    """Everything as one JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = facts | {"sections": [section.as_json() for section in sections]}
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
