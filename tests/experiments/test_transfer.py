"""A trained network on devices: tested, trained on, and priced."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from experiments import _finite, transfer


@pytest.mark.slow
def test_each_way_to_write_is_tested_before_and_after_training_on(tmp_path):
    config = transfer.Config(seeds=1, epochs=2, tuned=1, sigma_d2d=(0.3,), out=tmp_path)
    rows = transfer.run(config)
    assert json.loads((tmp_path / "metrics.json").read_text())["runs"] == rows
    numbers, *moved = rows
    assert numbers["moved"] > 0.8
    assert [row["write"] for row in moved] == ["exact", "open-loop", "write-verify"]
    by = {row["write"]: row for row in moved}
    assert by["exact"]["moved"] > by["open-loop"]["moved"]
    assert by["open-loop"]["tuned"] > by["open-loop"]["moved"]
    for row in moved:
        assert row["energy"] > 0
        assert row["energy_tuned"] > 0


def test_a_network_that_is_done_is_not_made_again(tmp_path, monkeypatch):
    made = []

    def one(dataset, learning, devices, sets, seed):
        made.append(seed)
        if made == [3, 4]:
            raise KeyboardInterrupt
        yield {"seed": seed, "write": "numbers", "moved": 0.5}

    monkeypatch.setattr(transfer, "_one", one)
    config = transfer.Config(seed=3, seeds=3, out=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        transfer.run(config)
    assert not (tmp_path / "metrics.json").exists()
    rows = transfer.run(replace(config, resume=True))
    assert made == [3, 4, 4, 5]
    assert [row["seed"] for row in rows] == [3, 4, 5]


class Lossy:
    """In place of a learner: on devices, with three epochs, all is lost."""

    def __init__(self, net, data, sets, key, rule):
        self.rule = rule

    def settled(self):
        return SimpleNamespace(weights={"h1->h2": SimpleNamespace(w=np.ones(1))})

    def trained(self, state):
        if self.rule.epochs == 3:
            raise _finite.NotFinite(["weights h1->h2"], "in batch 1 of epoch 2")
        return state

    def moved(self, state, make_weights):
        return state

    def accuracy(self, state):
        return 0.5


def test_weights_lost_on_devices_are_the_fault_of_the_rate_there(tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "_Learner", Lossy)
    config = transfer.Config(seeds=1, tuned=3, rate=1e30, out=tmp_path)
    with pytest.raises(_finite.NotFinite, match=r"on devices; pass a smaller --rate than 1e\+30$"):
        transfer.run(config)
