"""Sections, tables and folded numbers of the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def section(*parts: str) -> str:
    """One card of the page; ``parts`` are markup."""
    return f"<section>\n{chr(10).join(parts)}\n</section>"


def details(content: str) -> str:
    """Markup that is folded away until asked for."""
    return f"<details><summary>The numbers</summary>{content}</details>"


def table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
    total: Sequence[str] = (),
) -> str:
    """A table of plain text, which is escaped here; the columns in ``numbers`` stand right."""

    def cells(row: Sequence[str]) -> str:
        return "".join(
            f'<th scope="row">{escape(cell)}</th>'
            if i == 0 and 0 not in numbers
            else f"<td{_number(i, numbers)}>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )

    head = "".join(f'<th scope="col"{_number(i, numbers)}>{escape(h)}</th>' for i, h in enumerate(heads))
    body = "".join(f"<tr>{cells(row)}</tr>" for row in rows)
    foot = f"<tfoot><tr>{cells(total)}</tr></tfoot>" if total else ""
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody>{foot}</table></div>"
    )


def _number(index: int, numbers: Sequence[int]) -> str:
    return ' class="n"' if index in numbers else ""
