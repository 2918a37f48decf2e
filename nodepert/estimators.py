"""Estimators of scikit-learn: networks trained by a rule, for pipelines, cross-validation and searches."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from nodepert.core import Model
from nodepert.data.checks import Arrays
from nodepert.data.dataset import Dataset, build
from nodepert.data.signature import signature_of
from nodepert.errors import UserError
from nodepert.models.adapters.anything import model_of
from nodepert.registry import full, make, make_loss, make_model
from nodepert.registry.generator import pinned
from nodepert.registry.ranges import check_numbers
from nodepert.training import devices
from nodepert.training.compile_cache import keep_programs
from nodepert.training.hyper import Hyper
from nodepert.training.metrics import diverged
from nodepert.training.predictor import Predictor
from nodepert.training.program import EVALUATION_BATCH
from nodepert.training.rehearsal import rehearse
from nodepert.training.replicas import fit_all


class _NodePert(BaseEstimator):
    """What both estimators share."""

    _task: str

    def __init__(
        self,
        rule: str = "np",
        network: Any = "fc(width=100, depth=1)",
        optimizer: str = "adam(schedule=cosine)",
        lr: float = 3e-3,
        epochs: int = 50,
        batchsize: int = 32,
        loss: str = "",
        wd: float = 0.0,
        random_state: Any = None,
    ):
        self.rule, self.network, self.optimizer, self.lr = rule, network, optimizer, lr
        self.epochs, self.batchsize, self.loss, self.wd, self.random_state = epochs, batchsize, loss, wd, random_state

    def _inputs(self, X: Any, *y: Any, **options: Any) -> Any:
        return validate_data(self, X, *y, dtype=[np.float64, np.float32], **options)

    @pinned()
    def _train(self, X: np.ndarray, y: np.ndarray, outputs: int) -> None:
        """Train on checked arrays, and set what prediction needs."""
        for name in ("epochs", "batchsize"):
            if not isinstance(value := getattr(self, name), int | np.integer) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1; got {value!r}")
        devices.start()
        keep_programs()
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        check_numbers(self.lr, self.wd, seed)
        data = build("X", Arrays(X, y, X[:1], y[:1]), outputs, "X, y", task=self._task)
        hyper = Hyper(full("rule", self.rule), full("optimizer", self.optimizer), float(self.lr), float(self.wd), seed)
        model, loss = self._model(data), make_loss(self.loss)
        rehearse(model, loss, [hyper], X.shape[1:], "", outputs, self._task)
        rows, state = [], None
        size = min(self.batchsize, len(X))
        for found in fit_all(model, loss, data, [hyper], batchsize=size, epochs=self.epochs):
            rows.append(found.rows[0])
            state = found.state
        if diverged(rows[-1]):
            warnings.warn(f"training diverged in epoch {rows[-1]['epoch']}; a lower lr than {self.lr:g} may not",
                          ConvergenceWarning, stacklevel=3)  # fmt: skip
        assert state  # of epoch 0 at least
        self.params_ = jax.tree.map(np.asarray, state(0).params)
        self.loss_curve_ = [row["train_loss"] for row in rows]
        self._signature = signature_of(data)
        self._adapting = str(hyper.rule) if make("rule", hyper.rule, model, loss).model else ""
        self._predictor = self._made()

    def _model(self, data: Dataset) -> Model:
        build = make_model if isinstance(self.network, str) else model_of
        return build(self.network, data.train_x.shape[1:], data.outputs)

    def _made(self) -> Predictor:
        named = isinstance(self.network, str)
        return Predictor(self._signature, self.network if named else "", self.loss, self._adapting,
                         None if named else self.network)  # fmt: skip

    def _outputs(self, X: Any) -> np.ndarray:
        """Outputs of the network, whose batches have one size: no output depends on how many examples there are."""
        check_is_fitted(self)
        X = self._inputs(X, reset=False)
        filled = np.pad(X, ((0, -len(X) % EVALUATION_BATCH), (0, 0)), "edge")
        return self._predictor.outputs(self.params_, filled)[: len(X)]

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()  # pyright: ignore[reportAssignmentType]
        return {k: v for k, v in state.items() if k != "_predictor"}  # it holds compiled programs

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_signature" in state:
            self._predictor = self._made()


class NodePertClassifier(ClassifierMixin, _NodePert):
    """A classifier: a network trained by a learning rule, as an estimator of scikit-learn.

    Inputs are standardised per feature. `sample_weight` and sparse inputs are not supported.

    Args:
        rule: Learning rule, as a spec: "np", "sgd", "np(samples=4)", ... See 'nodepert list rules'.
        network: Network, as a spec, or a Flax or Equinox module, a `Model`, or a factory
            (input_shape, classes) -> Model.
        optimizer: Optimizer, as a spec.
        lr: Learning rate, the first value of a schedule.
        epochs: Passes over the training data.
        batchsize: Examples per update; at most all.
        loss: Loss, as a spec. Only with cross-entropy there is `predict_proba`, the softmax of the outputs.
        wd: Decoupled weight decay per update.
        random_state: Seed of weights, shuffling and noise, as in scikit-learn.

    Attributes:
        classes_: The labels, sorted.
        params_: The parameters of the network.
        loss_curve_: Training loss before training and after each epoch.
        n_features_in_: Number of features.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True)
        >>> classifier = npt.NodePertClassifier(rule="np", epochs=2, random_state=0).fit(X, y)
        >>> classifier.predict_proba(X[:5]).shape
        (5, 3)
    """

    _task = "classes"

    def __init__(
        self,
        rule: str = "np",
        network: Any = "fc(width=100, depth=1)",
        optimizer: str = "adam(schedule=cosine)",
        lr: float = 3e-3,
        epochs: int = 50,
        batchsize: int = 32,
        loss: str = "cross-entropy",
        wd: float = 0.0,
        random_state: Any = None,
    ):
        super().__init__(rule, network, optimizer, lr, epochs, batchsize, loss, wd, random_state)

    def fit(self, X: Any, y: Any) -> NodePertClassifier:
        """Train on inputs X, (N, features), and labels y, (N,), of any type. Raises ValueError."""
        X, y = self._inputs(X, y)
        check_classification_targets(y)
        self.classes_, indices = np.unique(y, return_inverse=True)
        self._train(X, indices, len(self.classes_))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The labels of inputs, (N,)."""
        outputs = self._outputs(X)
        return self.classes_[self._predictor.signature.predictions(outputs)]

    @available_if(lambda self: self.loss == "cross-entropy")
    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes, (N, classes), in the order of `classes_`."""
        return np.asarray(jax.nn.softmax(self._outputs(X), -1))


class NodePertRegressor(RegressorMixin, _NodePert):
    """A regressor: a network trained by a learning rule, as an estimator of scikit-learn.

    Inputs are standardised per feature, and targets per output. Arguments and attributes are those of
    `NodePertClassifier`, without `classes_`; `sample_weight` and sparse inputs are not supported.

    Args:
        loss: Loss of the standardised targets, as a spec.

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> regressor = npt.NodePertRegressor(rule="np", epochs=2, random_state=0).fit(X, y)
        >>> regressor.predict(X[:5]).shape
        (5,)
    """

    _task = "values"

    def __init__(
        self,
        rule: str = "np",
        network: Any = "fc(width=100, depth=1)",
        optimizer: str = "adam(schedule=cosine)",
        lr: float = 3e-3,
        epochs: int = 50,
        batchsize: int = 32,
        loss: str = "linear-mse",
        wd: float = 0.0,
        random_state: Any = None,
    ):
        super().__init__(rule, network, optimizer, lr, epochs, batchsize, loss, wd, random_state)

    def fit(self, X: Any, y: Any) -> NodePertRegressor:
        """Train on inputs X, (N, features), and targets y, (N,) or (N, outputs). Raises ValueError."""
        X, y = self._inputs(X, y, multi_output=True, y_numeric=True)
        y = y.astype(np.float64)
        self._several = y.ndim > 1
        self._train(X, y, int(np.prod(y.shape[1:])))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The targets of inputs, shaped as in `fit`."""
        outputs = self._outputs(X)
        found = self._predictor.signature.predictions(outputs)
        return found.reshape(len(found), -1) if self._several else found

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output, tags.target_tags.single_output = True, True
        return tags
