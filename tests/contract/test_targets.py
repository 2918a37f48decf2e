"""Targets have one meaning: class indices within the outputs, or values shaped as the outputs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert import registry
from nodepert.core import as_values, per_example
from nodepert.studies.setup import hyper_of
from nodepert.training.rehearsal import rehearse

pytestmark = pytest.mark.usefixtures("quickly_compiled")

WRONG = {  # shapes of outputs and targets, and what the message says
    "a value per example": ((5, 1), jnp.ones(5), "(5, 1); got float32 of shape (5,). Give values a last axis"),
    "class indices as floats": ((5, 3), jnp.ones(5), "Convert class indices to integers: y.astype(int)"),
    "values as integers": ((5, 3), jnp.ones((5, 3), int), "got int32 of shape (5, 3). Convert values to floats"),
    "a column of indices": ((5, 3), jnp.ones((5, 1), int), "integers of shape (5,)"),
    "a column of values": ((5, 3), jnp.ones((5, 1)), "give the network another number of outputs"),
    "transposed": ((5, 3), jnp.ones((3, 5)), "shaped as the outputs, (5, 3)"),
    "another batch": ((5, 3), jnp.ones(4, int), "integers of shape (5,)"),
    "one row for all": ((5, 3), jnp.ones((1, 3)), "got float32 of shape (1, 3)"),
    "steps as values": ((5, 2, 3), jnp.ones((5, 2)), "integers of shape (5, 2)"),
}


@pytest.mark.parametrize("name", registry.names("loss"))
@pytest.mark.parametrize("what", WRONG)
def test_targets_that_do_not_fit_are_an_error_with_both_shapes(what, name):
    shape, targets, message = WRONG[what]
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        jax.eval_shape(npt.make_loss(name), jnp.zeros(shape), targets)
    assert "\n" not in str(error.value)


def test_an_output_error_takes_no_other_targets_than_a_loss():
    model = npt.make_model("fc(width=4)", (3,), 1)
    rule = npt.make_rule("dfa(error=linear)", model, lambda outputs, targets: jnp.square(outputs[:, 0] - targets))
    params, x = model.init(jax.random.key(0)), jnp.ones((5, 3))
    state = rule.init(jax.random.key(1), params, x)
    with pytest.raises(ValueError, match="Give values a last axis"):
        jax.eval_shape(rule.grads, jax.random.key(2), state, params, (x, jnp.ones(5)))


def test_values_of_any_rank_and_flags_are_values():
    outputs = jnp.zeros((2, 3, 4))
    assert as_values(jnp.zeros((2, 3), int), outputs).shape == (2, 3, 4)
    assert as_values(np.ones((2, 3, 4), bool), outputs).dtype == jnp.float32
    losses = npt.make_loss("cross-entropy")(outputs, jnp.zeros((2, 3), "uint8"))
    np.testing.assert_allclose(losses, np.full((2, 3), np.log(4)), rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3, 100])
def test_a_label_without_an_output_is_named_wherever_labels_are_concrete(label):
    model, x = npt.make_model("fc(width=4)", (2,), 3), jnp.ones((4, 2))
    labels = jnp.array([0, 1, 2, label])
    for loss in ("mse", "cross-entropy", lambda o, y: npt.make_loss("mse")(o, y) + 1):
        with pytest.raises(ValueError, match=rf"label {label} has no output: with 3 outputs .* 0\.\.2"):
            npt.check(model, "sgd", loss, (x, labels), study=False)
    with pytest.raises(ValueError, match=f"label {label} has no output"):
        npt.make_loss("linear-mse")(jnp.zeros((4, 3)), np.asarray(labels))


@pytest.mark.parametrize("name", registry.names("loss"))
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (list("abca"), r"arrays of numbers; got <U1. Number the classes 0, 1, 2, \.\.\., as np\.unique"),
        (np.array(list("abca"), object), "got object"),
        (None, "got object"),
        ((np.ones(4), np.ones((4, 3))), "got object"),
        (np.arange(4) % 3 + 2**32, "4294967296 does not fit into int32"),
        (np.full(4, 2**63, np.uint64), "9223372036854775808 does not fit into uint32"),
    ],
    ids=["names", "objects", "none", "several", "wrapped", "unsigned"],
)
def test_what_is_no_array_of_numbers_or_would_be_wrapped_is_an_error(targets, message, name):
    with pytest.raises(ValueError, match=message) as error:
        npt.make_loss(name)(jnp.zeros((4, 3)), targets)
    assert "\n" not in str(error.value)
    if targets is not None:
        with pytest.raises(npt.UserError, match=message):
            npt.check(npt.make_model("fc(width=4)", (2,), 3), "sgd", name, (np.ones((4, 2)), targets), study=False)


def test_a_list_of_labels_is_an_array():
    for name in registry.names("loss"):
        loss = npt.make_loss(name)
        assert (loss(jnp.ones((3, 3)), [0, 1, 2]) == loss(jnp.ones((3, 3)), np.arange(3))).all()


def logistic(outputs, targets):
    return jax.nn.softplus(jnp.where(targets == 1, -1, 1) * outputs[:, 0])


def ordinal(outputs, targets):  # K-1 outputs: is the rank above each threshold
    above = targets[:, None] > jnp.arange(outputs.shape[1])
    return jax.nn.softplus(jnp.where(above, -1, 1) * outputs).sum(-1)


def negative_binomial(outputs, targets):  # outputs are log mean and log dispersion
    mean, r = jnp.exp(outputs).T
    return -targets * jnp.log(mean / (mean + r)) - r * jnp.log(r / (mean + r))


def masked(outputs, targets):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), jnp.maximum(targets, 0)[..., None], -1)[..., 0]
    return jnp.where(targets >= 0, -chosen, 0)


INTEGERS = {  # of a loss of the user's own: number of outputs, targets
    "one output for two classes": (logistic, 1, [0, 1, 1]),
    "ranks": (ordinal, 3, [0, 2, 3]),
    "counts": (negative_binomial, 2, [0, 40, 7]),
    "padding": (masked, 3, [2, -1, 0]),
    "years": (lambda o, y: jnp.square(o[:, 0] - (y - 1990.0)), 2, [1988, 2024, 1995]),
}


@pytest.mark.parametrize("name", INTEGERS)
def test_a_loss_of_the_users_own_says_what_integers_mean(name, own):
    loss, n, targets = INTEGERS[name]
    assert jnp.isfinite(per_example(loss, jnp.full((3, n), 0.3), jnp.array(targets))).all()
    model = npt.make_model("fc(width=4)", (2,), n)
    batch, params = (jnp.ones((3, 2)), jnp.array(targets)), model.init(jax.random.key(0))
    assert jnp.isfinite(npt.make_rule("sgd", model, loss).grads(jax.random.key(1), (), params, batch)[2].loss).all()
    npt.register("loss", "own", loss)
    jax.eval_shape(lambda y: npt.make_loss("own")(jnp.zeros((3, n)), y), batch[1])


def test_nodepert_reads_integers_as_class_indices():
    with pytest.raises(ValueError, match=r"label 1 has no output: with 1 output labels"):
        per_example(npt.make_loss("mse"), jnp.zeros((2, 1)), jnp.array([0, 1]))


def test_a_rehearsal_takes_ranks_of_a_network_with_one_output_fewer(own):
    npt.register("loss", "ordinal", ordinal)
    run = npt.Run(dataset="digits", network="fc(width=5)", loss="ordinal")
    model, loss = npt.make_model("fc(width=5)", (4,), 2), npt.make_loss("ordinal")
    assert rehearse(model, loss, [hyper_of(run)], (4,), classes=3)
    with pytest.raises(npt.UserError, match="label 2 has no output"):
        rehearse(model, npt.make_loss("mse"), [hyper_of(run)], (4,), classes=3)


def test_a_network_with_fewer_outputs_than_classes_is_refused_before_it_trains(own):
    npt.register("network", "few", lambda shape, classes: npt.make_model("fc(width=5)", shape, classes - 1))
    for network in ("few", "precision(few)"):
        run = npt.Run(dataset="digits", network=network, loss="cross-entropy")
        with pytest.raises(npt.UserError, match=r"label 9 has no output: with 9 outputs .*\(network .*few"):
            npt.train(run, name="few")
