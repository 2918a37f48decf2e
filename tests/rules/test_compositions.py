"""Forms that lower the variance, composed with each other, are unbiased on convolutions and mixers too.

On a fully connected network they are held in tests/diagnostics/test_conformance.py.
"""

from itertools import product

import jax
import numpy as np
import pytest

import nodepert as npt
from nodepert.diagnostics.conformance.cases import case, small_networks, subject_of
from nodepert.diagnostics.conformance.mean import check_mean, estimates

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

NETWORKS = {
    "conv": lambda: small_networks()["convolutional"],
    "mixer": lambda: (npt.make_model("mixer(width=8, groups=2, patches=2, blocks=1)", (4, 4, 1), 3), (4, 4, 1)),
}
COMPOSITIONS = [
    "np(difference=jvp, active=True, head=evaluated, guide=chain, noise=orthogonal, samples=4)",
    "np(difference=jvp, active=True, head=evaluated, guide=kp, noise=rademacher)",
    "np(difference=jvp, active=True)",
    "np(difference=jvp, active=True, noise=orthogonal, samples=2, sharing=batch)",
    "np(difference=jvp, head=evaluated, noise=sphere)",
    "np(difference=jvp, active=True, head=evaluated, guide=feedback, samples=2)",
    "np(difference=jvp, head=evaluated, guide=feedback(rate=0.5), noise=orthogonal, samples=2)",
    "np(difference=jvp, active=True, head=evaluated, guide=dfa, noise=rademacher)",
    "np(difference=jvp, active=True, head=evaluated, guide=last, noise=sphere, sharing=batch)",
    "np(difference=jvp, head=evaluated, guide=kp(decay=0.1), noise=orthogonal, samples=8)",
    "wp(difference=jvp, active=True, samples=4)",
    "np(difference=jvp, active=True, samples=2); out=exact",
]
EVERY = [*product(NETWORKS, COMPOSITIONS)]
AT_ONCE = {("conv", COMPOSITIONS[0]), ("mixer", COMPOSITIONS[1])}  # the others take minutes


@pytest.mark.parametrize(
    ("network", "form"), [p if p in AT_ONCE else pytest.param(*p, marks=pytest.mark.slow) for p in EVERY]
)
def test_the_mean_of_a_composition_is_the_gradient_and_a_wrong_scale_is_found(network, form):
    with jax.debug_key_reuse(True):
        on = case(subject_of(form), f"'{form}' on {network}", *NETWORKS[network](), seed=1)
        found = estimates(on, 8192 if form.startswith("wp") else 4096)
    reached = {node for node, g in found.exact.items() if np.any(g)}  # not the heads of a mixer
    found = found._replace(draws={n: found.draws[n] for n in reached}, exact={n: found.exact[n] for n in reached})
    check_mean(on.where, "unbiased", found)
    wrong = found._replace(draws={node: 1.25 * draws for node, draws in found.draws.items()})
    with pytest.raises(AssertionError, match="is a factor or a sign wrong"):
        check_mean(on.where, "unbiased", wrong)
