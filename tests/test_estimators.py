"""The estimators of scikit-learn: its own checks, labels of any type, pipelines and searches, pickles, objects."""

import pickle
import warnings

import flax.linen as nn
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import nodepert as npt

pytestmark = pytest.mark.usefixtures("quickly_compiled")
SMALL = {"network": "fc(width=20, depth=1)", "rule": "sgd", "lr": 3e-2, "epochs": 20, "random_state": 0}
CLASSIFIER, REGRESSOR = npt.NodePertClassifier(**SMALL), npt.NodePertRegressor(**SMALL)
X, Y = load_iris(return_X_y=True)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.relu(nn.Dense(8)(x)))


@pytest.mark.slow
@parametrize_with_checks([CLASSIFIER, REGRESSOR])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


QUICK = ("check_no_attributes_set_in_init", "check_parameters_default_constructible", "check_estimators_unfitted",
         "check_get_params_invariance", "check_n_features_in")  # fmt: skip


@pytest.mark.parametrize("estimator", [CLASSIFIER, REGRESSOR], ids=["classifier", "regressor"])
def test_those_checks_that_are_quick(estimator):
    checks = {check.func.__name__: check for _, check in estimator_checks_generator(estimator)}
    for name in QUICK:
        checks[name](clone(estimator))


@pytest.fixture(scope="module")
def fitted():
    return clone(CLASSIFIER).fit(X, np.array(["setosa", "versicolor", "virginica"])[Y])


def test_labels_are_of_any_type_and_probabilities_are_those_of_the_classes(fitted):
    assert list(fitted.classes_) == ["setosa", "versicolor", "virginica"]
    assert fitted.score(X, fitted.classes_[Y]) > 0.9
    found = fitted.predict_proba(X)
    assert found.shape == (150, 3) and np.allclose(found.sum(1), 1, atol=1e-6)
    assert (fitted.classes_[found.argmax(1)] == fitted.predict(X)).all()
    assert len(fitted.loss_curve_) == 21 and fitted.loss_curve_[-1] < fitted.loss_curve_[0]


def test_a_pickle_predicts_the_same_bits(fitted):
    assert (pickle.loads(pickle.dumps(fitted)).predict_proba(X) == fitted.predict_proba(X)).all()


def test_no_prediction_depends_on_how_many_there_are(fitted):
    assert (fitted.predict_proba(X[:3]) == fitted.predict_proba(X)[:3]).all()


def test_a_seed_gives_the_same_bits_and_another_one_others(fitted):
    again = clone(CLASSIFIER).fit(X, Y)
    assert (again.predict_proba(X) == fitted.predict_proba(X)).all()
    other = clone(CLASSIFIER).set_params(random_state=1).fit(X, Y)
    assert (other.predict_proba(X) != fitted.predict_proba(X)).any()


def test_probabilities_need_cross_entropy():
    assert hasattr(CLASSIFIER, "predict_proba")
    assert not hasattr(clone(CLASSIFIER).set_params(loss="mse"), "predict_proba")


def test_pipelines_and_searches():
    pipeline = make_pipeline(StandardScaler(), clone(CLASSIFIER).set_params(epochs=1))
    search = GridSearchCV(pipeline, {"nodepertclassifier__lr": [1e-6, 3e-2]}, cv=2).fit(X, Y)
    assert search.best_params_ == {"nodepertclassifier__lr": 3e-2}


def test_regression_in_the_units_of_the_targets():
    x, y = load_diabetes(return_X_y=True)
    found = clone(REGRESSOR).fit(x, y)
    assert found.predict(x).shape == y.shape and found.score(x, y) > 0.5
    assert abs(found.predict(x).mean() - y.mean()) < 10
    pair = clone(REGRESSOR).set_params(epochs=1).fit(x, np.stack([y, 1000 * y], 1))
    assert pair.predict(x[:4]).shape == (4, 2) and 100 < pair.predict(x)[:, 1].mean() / y.mean() < 10_000


def test_a_network_may_be_a_flax_module():
    found = clone(CLASSIFIER).set_params(network=Net(), rule="np").fit(X, Y)
    assert (pickle.loads(pickle.dumps(found)).predict(X) == found.predict(X)).all()


def test_a_rule_that_adapts_the_network_predicts_with_it():
    found = clone(CLASSIFIER).set_params(rule="decorrelate(sgd)").fit(X, Y)
    assert found.score(X, Y) > 0.9


@pytest.mark.parametrize(
    "change, error",
    [
        ({"rule": "nq"}, "unknown rule 'nq'"),
        ({"lr": -1.0}, "lr .* not negative"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1; got 0"),
        ({"batchsize": 1.5}, "batchsize must be a whole number of at least 1; got 1.5"),
        ({"network": 3}, "a network is a Model"),
    ],
)
def test_wrong_parameters_are_one_line(change, error):
    with pytest.raises(npt.UserError, match=error):
        clone(CLASSIFIER).set_params(**change).fit(X, Y)


def test_divergence_is_a_warning():
    wild = clone(REGRESSOR).set_params(optimizer="sgd", lr=1e20, network="fc(width=4)")
    with pytest.warns(ConvergenceWarning, match="training diverged in epoch 1"):
        wild.fit(X, Y)
    with warnings.catch_warnings(), pytest.raises(npt.UserError, match="diverged"):
        warnings.simplefilter("error")
        wild.predict(X)
