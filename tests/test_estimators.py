"""The estimators of scikit-learn: its own checks, labels of any type, pipelines and searches."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

import nodepert as npt

pytestmark = pytest.mark.usefixtures("quickly_compiled")
SMALL = dict(network="fc(width=20, depth=1)", rule="sgd", lr=3e-2, epochs=20, random_state=0)


@parametrize_with_checks([npt.NodePertClassifier(**SMALL), npt.NodePertRegressor(**SMALL)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)
