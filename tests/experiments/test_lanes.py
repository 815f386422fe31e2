"""Trainings side by side in one program: each is the one that runs alone."""

import numpy as np
import pytest

from experiments import _command, _lanes, learn
from experiments._lanes import Lane
from neurojax.data import Split, load

COMMON = (
    "--dataset digits --hidden 16 --epochs 2 --batch-size 32 --optimiser sgd --weight-decay 0"
    " --inputs raw --augment none --train-size 320"
)
LEARNERS = {
    "backprop on devices": "--learner backprop --schedule cosine --synapse linear",
    "counter-current": "--learner counter_current --schedule cosine",  # reads the data's mean
    "broadcast": "--learner wta_broadcast --recurrence none --readout-population 1",
}
TOLD = ("test_accuracy", "val_accuracy", "train_accuracy")


def config(options, *more):
    return _command.parsed(learn.Config, [*COMMON.split(), *options.split(), *more], learn)


@pytest.mark.slow
@pytest.mark.parametrize("options", LEARNERS.values(), ids=LEARNERS)
def test_each_lane_is_the_training_that_runs_alone(options, tmp_path):
    rates, seeds = (0.05, 0.2), (3, 4)
    sets = load("digits", None)
    lanes = [Lane(r, s) for r, s in zip(rates, seeds, strict=True)]
    found = list(_lanes.trained(config(options), [sets], lanes))
    both = "" if "broadcast" not in options else " --lr-readout {0}"
    for told, (rate, seed) in zip(found, zip(rates, seeds, strict=True), strict=True):
        words = f"--lr {{0}}{both} --seed {seed} --out {tmp_path / str(seed)}".format(rate)
        alone = learn.run(config(options, *words.split()))
        for name in TOLD:  # a last digit may turn one picture of the 287
            np.testing.assert_allclose(told[name], alone[name], atol=1.1 / 287)
        assert told["weight_updates"] == alone["weight_updates"]
        assert told["config"]["lr"] == alone["config"]["lr"] == rate
        assert told["seed"] == alone["seed"] == seed
        for array, counted in alone.get("devices", {}).items():
            assert told["devices"][array]["n_pulses"] == pytest.approx(
                counted["n_pulses"], rel=0.02
            )
    assert found[0]["train_accuracy"] != found[1]["train_accuracy"]


@pytest.mark.slow
def test_a_lane_of_recordings_is_the_training_that_runs_alone(tmp_path):
    words = (
        "--dataset moving-digits --learner wta_broadcast --hidden 24 --recurrence none --epochs 8"
        " --readout-population 1 --train-size 256 --lr 0.01 --lr-readout 0.01 --seed 3"
    ).split()
    c = _command.parsed(learn.Config, [*words, "--out", str(tmp_path)], learn)
    told = next(_lanes.trained(c, [load("moving-digits", None)], [Lane(0.01, 3)]))
    alone = learn.run(c)
    for name in TOLD:
        np.testing.assert_allclose(told[name], alone[name], atol=1.1 / 256)
    assert told["train_accuracy"][-1] > 1.5 * told["train_accuracy"][0]  # it learns


@pytest.mark.slow
def test_a_lane_learns_from_its_own_set_and_a_lost_one_costs_no_other():
    first = load("digits", None)
    negative = lambda x: Split(1 - x.images, 9 - x.labels)  # noqa: E731
    train, val, test = (negative(x) for x in (first.train, first.val, first.test))
    other = first._replace(train=train, val=val, test=test)
    c = config(LEARNERS["counter-current"].replace("counter_current", "backprop"))
    alone = list(_lanes.trained(c, [other], [Lane(0.1, 0)]))
    both = list(_lanes.trained(c, [first, other], [Lane(0.1, 0), Lane(0.1, 0, 1), Lane(1e38, 0)]))
    np.testing.assert_allclose(both[1]["val_accuracy"], alone[0]["val_accuracy"], atol=1.1 / 287)
    assert both[0]["val_accuracy"] != both[1]["val_accuracy"]
    assert both[2]["lost"] == "weights must stay finite; got NaN or infinity in epoch 1"
    assert "test_accuracy" not in both[2]
