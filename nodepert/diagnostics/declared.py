"""What a rule declares about its bias, by the paragraph "Bias: ..." of its docstring."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nodepert import registry
from nodepert.registry.spec import Spec

BIASES = ("exact", "unbiased", "biased")  # from the strongest claim to the weakest


def bias_of(facts: dict[str, str], inner: Iterable[str | None], form: Spec | None = None) -> str | None:
    """The first word of "Bias: ..."; biased, if the form has an argument of which it says "biased with name=value", or
    another value than in "biased unless name=value"; where the word is "as", of a combinator, the weakest claim of the
    rules it wraps."""
    text = " ".join(facts.get("Bias", "").split())
    given = {name: str(value).removesuffix(".0") for name, value in form.kwargs} if form else {}
    with_, unless = (re.findall(rf"biased {word} (\w+)=(\w+)", text) for word in ("with", "unless"))
    if any(given.get(k) == v for k, v in with_) or any(given.get(k, v) != v for k, v in unless):
        return "biased"
    word = re.split(r"\W", text)[0]
    if word == "as":
        inner = list(inner)
        return max((b for b in inner if b), key=BIASES.index) if inner and all(inner) else None
    return word if word in BIASES else None


def bias_of_spec(spec: Spec) -> str | None:
    """The same, of a spec: exact, unbiased, biased, or None where it declares nothing; the weaker claim of a rule and
    of the credit that it is given."""
    found = bias_of(registry.facts("rule", spec.name), map(bias_of_spec, registry.inner("rule", spec)), spec)
    credit = [bias_of(registry.facts("credit", v.name), (), v) for k, v in spec.kwargs if k == "credit"]
    return max((b for b in (found, *credit) if b), key=BIASES.index) if found else None
