"""A report as Markdown: the summary table, the same for LaTeX, the commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nodepert.report.numbers import NOTE, cells, common, epochs, headings, headline, left, options, sources, standing

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$",
}  # fmt: skip


def markdown(data: Mapping[str, Any]) -> str:
    """The text of a report, of what `gather` gives."""
    columns, head = left(data), headings(data)
    rows, told = [], []
    for group in data["groups"]:
        rows.append([*(options(group)[key] for key in columns), *cells(data, group), epochs(group)])
        told.append("; ".join(standing(group["statuses"])))
    lines = [[*map(escaped, row), escaped(text)] for row, text in zip(rows, told, strict=True)]
    shared = ", ".join(f"{key} {text}" for key, text in common(data).items())
    parts = [
        f"# {escaped(data['study'])}",
        escaped(headline(data) + "."),
        escaped(f"All with {shared}.") if shared else "",
        table([*map(escaped, head)], lines, len(columns)),
        escaped(NOTE),
        "For LaTeX (package booktabs):",
        fenced("latex", latex(head[:-1], rows, len(columns))),
        "The commands:",
        fenced("sh", "\n".join(group["command"] for group in data["groups"])),
        "\n".join(f"- {escaped(text)}" for text in sources(data)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """A text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|&~$#])", r"\\\1", text)


def latex(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> str:
    """A table for LaTeX; the first columns are `texts`, the others figures."""

    def line(row: Sequence[str]) -> str:
        return " & ".join("".join(LATEX.get(c, c) for c in text) for text in row) + r" \\"

    layout = "l" * texts + "r" * (len(head) - texts)
    body = [line(row) for row in rows]
    return "\n".join([f"\\begin{{tabular}}{{{layout}}}", r"\toprule", line(head), r"\midrule", *body, r"\bottomrule",
                      r"\end{tabular}"])  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """A table in Markdown; the first columns and the last are `texts`, the others figures."""
    rule = ["---" if i < texts or i == len(head) - 1 else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def fenced(language: str, text: str) -> str:
    """A block of code; a fence longer than any that is in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
