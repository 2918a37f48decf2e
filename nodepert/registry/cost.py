"""Forward passes per step, where they depend on the arguments of a rule."""

from __future__ import annotations

from typing import Any


def perturbation(passes: int, *, samples: int, difference: str, **_: Any) -> int | None:
    """Forward passes of a rule that takes `passes` with one draw; each further draw, and central, adds one."""
    central = difference == "central"
    return None if central and samples > 1 else passes + samples - 1 + central


def node_perturbation(*, baseline: str, presynaptic: str, replay: bool, samples: int, **options: Any) -> int | None:
    """Forward passes of np: a clean and a noisy pass, and the weight gradients; with a running baseline no clean one
    unless its activity is used."""
    if baseline == "running":
        return None if samples > 1 else 3 if presynaptic == "clean" else 2
    return None if replay or presynaptic == "noisy" else perturbation(3, samples=samples, **options)


def momentum_feedback(*, difference: str, **_: Any) -> int:
    """Forward passes of opzo: a clean and a noisy pass, and the weight gradients."""
    return 3 + {"single": -1, "central": 1}.get(difference, 0)
