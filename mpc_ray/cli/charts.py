"""Charts as inline SVG, without scripts: each has a title and a description, and says its numbers as text.

Colours are CSS classes of ``report.css``, so that light and dark both work. Sizes are in SVG units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count

WIDTH = 880
BAR = 20
GAP = 8
CHARACTER = 7.8  # mean width of one in the charts' font

_ids = count(1)


@dataclass(frozen=True)
class Bar:
    """One horizontal bar: ``text`` is its value for people, ``kind`` the CSS class of its colour."""

    label: str
    value: float
    text: str
    kind: str


def bars(title: str, description: str, rows: Sequence[Bar], width: int = 420) -> str:
    """Horizontal bars from zero, value at the end of each."""
    left = _left(row.label for row in rows)
    right = 14 + CHARACTER * max((len(row.text) for row in rows), default=0)
    most = max((row.value for row in rows), default=0.0) or 1.0
    body = []
    for index, row in enumerate(rows):
        y = 4 + index * (BAR + GAP)
        length = max(1.0, (width - left - right) * row.value / most)
        body += [
            row_label(left, y, row.label),
            f'<rect class="{row.kind}" x="{left}" y="{y}" width="{length:.1f}" height="{BAR}" rx="3">'
            f"{hover(f'{row.label}: {row.text}')}</rect>",
            f'<text x="{left + length + 6:.1f}" y="{y + 15}">{escape(row.text)}</text>',
        ]
    return drawing(title, description, width, 8 + len(rows) * (BAR + GAP), body)


def stacked(
    title: str,
    description: str,
    rows: Mapping[str, Mapping[str, float]],
    kinds: Mapping[str, str],
    text: Callable[[float], str],
) -> str:
    """One bar a row, made of its parts in the order of ``kinds``; the row's total at its end."""
    left = _left(rows)
    totals = {label: sum(parts.values()) for label, parts in rows.items()}
    right = 14 + CHARACTER * max((len(text(total)) for total in totals.values()), default=0)
    scale = (WIDTH - left - right) / (max(totals.values(), default=0.0) or 1.0)
    body = []
    for index, (label, parts) in enumerate(rows.items()):
        y, x = 4 + index * (BAR + GAP), float(left)
        body.append(row_label(left, y, label))
        for name, kind in kinds.items():
            value = parts.get(name, 0.0)
            if value <= 0:
                continue
            tip = hover(f"{label}, {name}: {text(value)}")
            body.append(
                f'<rect class="{kind} part" x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="{BAR}">{tip}</rect>'
            )
            x += value * scale
        body.append(f'<text x="{x + 6:.1f}" y="{y + 15}">{escape(text(totals[label]))}</text>')
    return drawing(title, description, WIDTH, 8 + len(rows) * (BAR + GAP), body)


@dataclass(frozen=True)
class Dots:
    """One series of a dot chart: a value for each row, and where its bound lies."""

    name: str
    values: Sequence[float]
    bound: float | None
    kind: str


def dots(title: str, description: str, labels: Sequence[str], series: Sequence[Dots]) -> str:
    """Dots on a logarithmic axis with a dashed line at each series' bound. Zeros sit at the left edge."""
    left, right, row = _left(labels), 24, BAR + 2
    positive = [v for s in series for v in (*s.values, *([] if s.bound is None else [s.bound])) if v > 0]
    low = math.floor(math.log10(min(positive, default=1e-9)))
    high = max(low + 1, math.ceil(math.log10(max(positive, default=1.0))))
    bottom = 6 + len(labels) * row

    def at(value: float) -> float:
        exponent = math.log10(value) if value > 0 else low
        return left + (WIDTH - left - right) * (min(max(exponent, low), high) - low) / (high - low)

    body = []
    step = max(1, (high - low) // 8)
    for exponent in range(low, high + 1, step):
        x = at(10.0**exponent)
        body.append(f'<line class="grid" x1="{x:.1f}" y1="2" x2="{x:.1f}" y2="{bottom}"/>')
        body.append(
            f'<text class="soft" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">1e{exponent}</text>'
        )
    for one in series:
        if one.bound is not None:
            x = at(one.bound)
            tip = hover(f"bound of {one.name}: {one.bound:.0e}")
            body.append(
                f'<line class="bound {one.kind}" x1="{x:.1f}" y1="2" x2="{x:.1f}" y2="{bottom}">{tip}</line>'
            )
    for index, label in enumerate(labels):
        y = 4 + index * row
        body.append(row_label(left, y - 2, label))
        for one in series:
            value = one.values[index]
            tip = hover(f"{label}, {one.name}: {value:.1e}")
            body.append(f'<circle class="{one.kind}" cx="{at(value):.1f}" cy="{y + 8}" r="5">{tip}</circle>')
    return drawing(title, description, WIDTH, bottom + 24, body)


def heat(title: str, description: str, labels: Sequence[str], matrix: Sequence[Sequence[float]]) -> str:
    """A square matrix of cosines, stronger colour for nearer to 1; numbers inside where there is room."""
    size = max(18, min(44, (WIDTH - 300) // max(1, len(labels))))
    left = WIDTH - size * len(labels) - 4
    letters = int((left - 44) / CHARACTER)
    body = []
    for i, label in enumerate(labels):
        y = 22 + i * size
        cut = label if len(label) <= letters else label[: letters - 1] + "…"
        body.append(f'<text x="0" y="{y + size / 2 + 5:.0f}">{i + 1:2}  {escape(cut)}</text>')
        body.append(
            f'<text class="soft" x="{left + i * size + size / 2:.0f}" y="14" text-anchor="middle">{i + 1}</text>'
        )
        for j, cosine in enumerate(matrix[i]):
            x, strength = left + j * size, min(1.0, max(0.0, cosine))
            tip = hover(f"{i + 1} and {j + 1}: cosine {cosine:.3f}")
            body.append(
                f'<rect class="heat" x="{x}" y="{y}" width="{size - 2}" height="{size - 2}" rx="3" '
                f'fill-opacity="{0.05 + 0.95 * strength:.2f}">{tip}</rect>'
            )
            if size >= 30:
                # Whichever of dark and light reads better on this strength, in light and in dark mode.
                kind = "strong" if strength > 0.85 else "dark" if strength > 0.58 else ""
                number = f"{round(cosine, 2) + 0.0:.2f}".replace("0.", ".")
                body.append(
                    f'<text class="{kind} small" x="{x + size / 2 - 1:.0f}" y="{y + size / 2 + 3:.0f}" '
                    f'text-anchor="middle">{number}</text>'
                )
    return drawing(title, description, WIDTH, 24 + size * len(labels), body)


def legend(kinds: Mapping[str, str]) -> str:
    """What each colour stands for."""
    items = "".join(
        f'<li><svg width="12" height="12" aria-hidden="true"><rect class="{kind}" width="12" height="12" rx="2"/></svg>'
        f"{escape(name)}</li>"
        for name, kind in kinds.items()
    )
    return f'<ul class="legend">{items}</ul>'


def drawing(title: str, description: str, width: float, height: float, body: Iterable[str]) -> str:
    """A chart of one's own: `body` is SVG."""
    number = next(_ids)
    return (
        f'<svg class="chart" role="img" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="max-width:{width:.0f}px" aria-labelledby="t{number} d{number}">'
        f'<title id="t{number}">{escape(title)}</title><desc id="d{number}">{escape(description)}</desc>'
        f"{''.join(body)}</svg>"
    )


def _left(labels: Iterable[str]) -> int:
    return int(12 + CHARACTER * max((min(len(label), 34) for label in labels), default=0))


def row_label(left: int, y: float, label: str) -> str:
    """The name of a row, right-aligned before `left`."""
    cut = label if len(label) <= 34 else label[:33] + "…"
    return f'<text x="{left - 8}" y="{y + 15}" text-anchor="end">{escape(cut)}</text>'


def hover(text: str) -> str:
    """What is said of a shape under the pointer."""
    return f"<title>{escape(text)}</title>"
