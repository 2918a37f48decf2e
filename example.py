"""Node perturbation against backpropagation (SGD) on MNIST: one table, one figure. Run it with `make example`.

Node perturbation adds noise to every pre-activation, measures the change in each example's loss, and keeps noise that
lowered it. It never differentiates the loss. Each rule has its own hyperparameters, given below.
"""

from dataclasses import replace

import nodepert as npt

try:
    data, note = npt.load_dataset("mnist"), ""
except npt.DataNotFound as missing:
    data = npt.load_dataset("mnist5k")
    note = "Full MNIST is not available; training on mnist5k, 5,000 MNIST digits."
    print(f"{note}\n({missing})\n")

EPOCHS = 10 if data.name == "mnist" else 40  # mnist5k has fewer updates per epoch
NP = npt.Run(
    dataset=data.name,
    network="fc(width=500, depth=2)",  # 784-500-500-10, ReLU
    loss="cross-entropy",
    rule="np(samples=4, noise=rademacher)",  # four random sign patterns per example and step
    optimizer="adam(schedule=cosine)",
    lr=5e-4,
    epochs=EPOCHS,
)
# On active units only, around a prediction of the error signals that is learned from the noise:
GUIDED = replace(NP, rule="np(samples=4, noise=orthogonal, active=True, head=evaluated, guide=feedback)", lr=1e-3)
SGD = replace(NP, rule="sgd", optimizer="sgd", lr=0.1, epochs=EPOCHS // 2)
RUNS = {"node perturbation": NP, "node perturbation, guided": GUIDED, "SGD (backpropagation)": SGD}


class Show(npt.Callback):
    def on_epoch(self, run, row, state):
        print(f"  epoch {row['epoch']:2d}   train {row['train_acc']:6.2f}%   test {row['test_acc']:6.2f}%")


results = {}
for name, run in RUNS.items():
    print(f"{name}: {run.rule}, {run.optimizer}, learning rate {run.lr:g}")
    results[name] = npt.train(run, data=data, callbacks=[Show()])

print(f"\n{'':26} train acc   test acc   s/epoch   on {data.name}")
for name, result in results.items():
    last, seconds = result.rows[-1], sum(row["epoch_time"] for row in result.rows) / result.run.epochs
    print(f"{name:26} {last['train_acc']:8.2f}%  {last['test_acc']:8.2f}%  {seconds:8.2f}")

title = f"Node perturbation learns: {data.name}, {len(data.train_y):,} training images"
path = npt.learning_curves({k: r.rows for k, r in results.items()}, "example_training.png", title)
print(f"\nfigure: {path}")
