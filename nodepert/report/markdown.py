"""A report as Markdown: the summary table, also for LaTeX, and the commands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nodepert.report import texts

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "±": r"$\pm$",
}  # fmt: skip


def markdown(data: Mapping[str, Any]) -> str:
    """The Markdown of a study's report, from the data of `gather`."""
    head, n = texts.headings(data), len(texts.left_columns(data))
    rows = [[*texts.left_cells(group).values(), *texts.metric_cells(data, group), texts.epochs_cell(group)]
            for group in data["groups"]]  # fmt: skip
    lines = [[*map(escaped, row), escaped("; ".join(texts.status_texts(group)))]
             for row, group in zip(rows, data["groups"], strict=True)]  # fmt: skip
    shared = ", ".join(f"{key} {text}" for key, text in texts.shared_options(data).items())
    parts = [
        f"# {escaped(data['study'])}",
        escaped(texts.headline(data) + "."),
        escaped(f"All runs: {shared}.") if shared else "",
        table([*map(escaped, head)], lines, n),
        escaped(texts.NOTE),
        "For LaTeX (package booktabs):",
        fenced("latex", latex(head[:-1], rows, n)),
        "The commands:",
        fenced("sh", "\n".join(group["command"] for group in data["groups"])),
        "\n".join(f"- {escaped(text)}" for text in texts.sources(data)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: str) -> str:
    """A text in which Markdown has no meaning."""
    return re.sub(r"([\\`*_\[\]<>|&~$#])", r"\\\1", text)


def latex(head: Sequence[str], rows: Iterable[Sequence[str]], n: int) -> str:
    """A table for LaTeX; the first n columns are texts, the others numbers."""

    def line(row: Sequence[str]) -> str:
        return " & ".join("".join(LATEX.get(c, c) for c in text) for text in row) + r" \\"

    layout = "l" * n + "r" * (len(head) - n)
    body = [line(row) for row in rows]
    return "\n".join([f"\\begin{{tabular}}{{{layout}}}", r"\toprule", line(head), r"\midrule", *body, r"\bottomrule",
                      r"\end{tabular}"])  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[str]], n: int) -> str:
    """A table in Markdown; the first n columns and the last are texts, the others numbers."""
    rule = ["---" if i < n or i == len(head) - 1 else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def fenced(language: str, text: str) -> str:
    """A block of code, in a fence longer than any in its text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
