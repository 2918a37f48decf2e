"""Parts of the pages that are generated from the code when the site is built:

<!-- nodepert: rule np -->       the arguments, cost and bias of a rule
<!-- nodepert: rules -->         a table of all rules
<!-- nodepert: registry -->      all registered names
<!-- nodepert: commands -->      the help of every command
"""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape

from latex2mathml.converter import convert

from nodepert.registry import about, facts, names, passes, plural, usage
from nodepert.registry.catalogue import BUILT_IN


def on_page_markdown(markdown, **_):
    return re.sub(r"<!-- nodepert: (\w+) ?([\w-]*) -->", lambda m: GENERATED[m[1]](*filter(None, [m[2]])), markdown)


def on_post_page(output, page, **_):
    """In notebooks, convert what the converter leaves unchanged: equations, and links to pages."""
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    output = re.sub(r"(?s)<div class=[^>]*jp-RenderedMarkdown.*?</div>", lambda m: equations(m[0]), output)
    return re.sub(r'href="((?!https?:)[^"#]+)\.(?:md|ipynb)([#"])', lambda m: f'href="{built(m[1])}.html{m[2]}', output)


def equations(text):
    """HTML with $..$ and $$..$$ as MathML, as in the other pages; code is left unchanged."""

    def shown(found):
        block, inline = found["block"], found["inline"]
        tex = unescape(block or inline or "")
        return convert(tex, display="block" if block else "inline") if tex else found[0]

    code = r"<(?P<tag>code|pre)\b.*?</(?P=tag)>"
    return re.sub(rf"(?s){code}|\$\$(?P<block>.+?)\$\$|\$(?P<inline>[^$]+)\$", shown, text)


def built(stem):
    """The name of a page's HTML file, without the suffix."""
    return re.sub(r"(^|/)README$", r"\1index", stem)


def rule(name):
    takes = usage("rule", name)
    rows = [*([("Arguments", f"`{takes}`")] if takes else []), *facts("rule", name).items()]
    return f"| Spec | `{name}` |\n|---|---|\n" + "\n".join(f"| **{key}** | {cell(text)} |" for key, text in rows)


def rules():
    rows = [f"| [`{n}`]({n}.md) | {cell(about('rule', n))} | {passes(n) or cell(facts('rule', n)['Cost'])} | "
            f"{cell(facts('rule', n)['Bias'])} |" for n in names("rule") if n != "exact"]  # fmt: skip
    return "\n".join(["| rule | | forward passes per step | bias |", "|---|---|---|---|", *rows])


def registry():
    parts = []
    for kind in BUILT_IN:
        parts += [f"## {plural(kind).capitalize()}", "| name | | arguments |", "|---|---|---|"]
        for name in names(kind):
            takes = usage(kind, name)
            parts.append(f"| `{name}` | {cell(about(kind, name))} | {f'`{cell(takes)}`' if takes else ''} |")
        parts.append("")
    return "\n".join(parts).replace("|\n## ", "|\n\n## ").replace("\n| name", "\n\n| name")


def commands():
    from nodepert.cli.app import COMMANDS

    parts = []
    for name in COMMANDS:
        parts += [f"## nodepert {name}", "```text", command_help(name), "```"]
    return "\n\n".join(["\n".join(parts[i : i + 4]) for i in range(0, len(parts), 4)])


def command_help(name):
    """The output of `nodepert NAME --help`, 80 columns wide."""
    env = {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1", "PATH": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-m", "nodepert", name, "--help"], env=env, capture_output=True, text=True,
                          check=True)  # fmt: skip
    return done.stdout.strip()


def cell(text):
    """A text escaped for a table cell."""
    return text.replace("|", r"\|").replace("<", "&lt;")


GENERATED = {"rule": rule, "rules": rules, "registry": registry, "commands": commands}
