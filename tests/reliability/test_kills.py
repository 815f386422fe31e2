"""Whenever a run is killed, it goes on to the same end, bit for bit, and leaves nothing lying.

KILLS (50) and SEED (0) in the environment say how often and when.
"""

import os
import re
import signal
import time
from functools import partial

import equinox as eqx
import jax
import numpy as np
import pytest

from experiments import _config, _training, wta_broadcast
from experiments._options import part
from neurojax import checkpoint
from tests.reliability.runs import BEFORE, GOES_ON, Command, files, outcome, reached

KILLS, SEED = (int(os.environ.get(name, usual)) for name, usual in (("KILLS", 50), ("SEED", 0)))
SIGNALS = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]
SMALL = "--dataset digits --train-size 256 --epochs 3 --hidden 32 --recurrence none"
DESIGN = (
    "--dataset digits --train-size 128 --batch-size 16 --hidden 8 --responses linear --policies"
    " bidirectional --n-states 16 64 --dynamic-range 10 --sigma-d2d 0 0.3 --lr 0.2 --seeds 2"
    " --width 1"
)


def state(out):
    """Epoch and bits of the last checkpoint."""
    c = _config.resolved(_config.Config(epochs=3, hidden=(32,), recurrence="none"))
    net, rule = part(c, _config.Network), part(c, _config.Learning)
    task = _training.task(part(c, _config.Data), (1, 8, 8), 10)
    make = partial(wta_broadcast.fresh, net, rule, task, 3 * (256 // c.batch_size))
    like = eqx.filter_eval_shape(make, jax.random.key(0))[1]
    epoch, found, _ = checkpoint.restore(out / "checkpoints", like)
    found = found._replace(key=jax.random.key_data(found.key))
    return epoch, [np.asarray(x).tobytes() for x in jax.tree.leaves(found)]


NETWORK = "song --seconds 1 --seeds 3"


class Study:
    """A command, how it ends when nothing happens to it, and how long that takes."""

    def __init__(self, command, root, states):
        self.command, self.states = command, states
        command.whole(root / "cold")
        self.seconds = command.whole(root / "warm")
        self.end = self.seen(root / "cold")
        assert self.seen(root / "warm") == self.end

    def seen(self, out):
        return outcome(out), files(out), self.states(out)

    def killed(self, out, rng, number, counts, *more) -> None:
        """Killed at a random moment, which is counted."""
        moment = rng.uniform(0, self.seconds)
        code, said = self.command.stopped(out, number, moment, *more)
        name, where = signal.Signals(number).name, reached(out)
        counts[f"{self.command.module} {name} {where}"] += 1
        if code == self.command.code:  # it was quicker than usual
            assert where == "after its end"
        elif number == signal.SIGKILL:
            assert (code, said) == (-9, "")
        else:
            assert code == 128 + number
            assert said in (BEFORE, GOES_ON)
            if not more:
                assert (said == BEFORE) == (where == "before it began")


@pytest.fixture(scope="module")
def training(surroundings, tmp_path_factory):
    command = Command("wta_broadcast", SMALL, surroundings)
    return Study(command, tmp_path_factory.mktemp("training"), state)


@pytest.fixture(scope="module")
def network(surroundings, tmp_path_factory):
    command = Command("networks", NETWORK, surroundings, code=1)  # so short, it agrees with nobody
    return Study(command, tmp_path_factory.mktemp("network"), lambda out: None)


@pytest.fixture(scope="module")
def design(surroundings, tmp_path_factory):
    command = Command("electronic_synapse", DESIGN, surroundings)
    return Study(command, tmp_path_factory.mktemp("design"), lambda out: None)


def goes_on(of, out, drawn, counts):
    """Killed at a moment that (SEED, *drawn) decides, it comes to the end of one left alone."""
    of.killed(out, np.random.default_rng((SEED, *drawn)), SIGNALS[drawn[-1] % 3], counts)
    of.command.whole(out, *again(out))
    assert of.seen(out) == of.end


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_training_goes_on_to_the_same_end(training, tmp_path, counts, kill):
    goes_on(training, tmp_path / "run", (kill,), counts)


@pytest.mark.parametrize("kill", range(KILLS // 10))
def test_a_study_of_many_parts_goes_on_to_the_same_end(design, tmp_path, counts, kill):
    goes_on(design, tmp_path / "run", (1, kill), counts)


@pytest.mark.parametrize("kill", range(KILLS // 10))
def test_a_network_of_the_field_goes_on_to_the_same_end(network, tmp_path, counts, kill):
    goes_on(network, tmp_path / "run", (4, kill), counts)


@pytest.mark.parametrize("chain", range(KILLS // 25))
def test_a_training_killed_again_and_again_does_too(training, tmp_path, counts, chain):
    rng = np.random.default_rng((SEED, 2, chain))
    for number in rng.choice(SIGNALS, 4):
        training.killed(tmp_path / "run", rng, int(number), counts, *again(tmp_path / "run"))
    training.command.whole(tmp_path / "run", *again(tmp_path / "run"))
    assert training.seen(tmp_path / "run") == training.end


@pytest.mark.parametrize("pair", range(KILLS // 10))
def test_of_two_on_one_folder_one_is_refused_and_the_other_is_as_alone(
    training, tmp_path, counts, pair
):
    out, rng = tmp_path / "run", np.random.default_rng((SEED, 3, pair))
    first = training.command.started(out)
    time.sleep(rng.choice([0.0, rng.uniform(0, training.seconds / 2)]))
    with first, training.command.started(out) as second:
        said = {p.communicate(timeout=300)[1]: p.returncode for p in (first, second)}
    counts["wta_broadcast two on one folder"] += 1
    ((refusal, code),) = [(line, code) for line, code in said.items() if line]
    assert code == 2
    assert refusal.count("\n") == 1
    assert re.search(rf"process {first.pid}|process {second.pid}", refusal)
    assert said[""] == 0
    assert training.seen(out) == training.end


def again(out) -> list[str]:
    """What is to be added to the same command."""
    return ["--resume"] if (out / "run.json").exists() else []
