"""What is asked by yes or no is answered by True or False, and by nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hardware as hw
import neurojax as nj
from neurojax import learning

KEY = jax.random.key(0)
WIRING = nj.Dense(2, 3)
RING = nj.watts_strogatz(None, 8, 8, 2, 0.0)
NET = nj.Network({"h": nj.Layer(3, nj.LIF())}, {"in": nj.Projection("x", "h", WIRING)})
EVENTS = nj.data.events([0, 9], [0, 1], shape=(1, 2, 1))
STAIR = nj.exponential_profile(1.0)
TX = optax.sgd(0.1)
DATA = jnp.ones((2, 3)), jnp.array([0, 1])

# The name, and what is called with the answer.
ASKED = [
    ("plastic", lambda x: nj.Projection("x", "h", WIRING, plastic=x)),
    ("native", lambda x: nj.FanOut([1], [0, 1], 2, 1, x)),
    ("native", lambda x: nj.procedural(KEY, 4, 4, 0.5, native=x)),
    ("native", lambda x: nj.as_fan_out(RING, native=x)),
    ("native", lambda x: nj.by_sender([0], [0], 1, 1, native=x)),
    ("native", lambda x: nj.bernoulli(None, 4, 4, 1.0, native=x)),
    ("autapses", lambda x: nj.procedural(KEY, 4, 4, 0.5, autapses=x)),
    ("autapses", lambda x: nj.fan_in(KEY, 4, 4, 0.5, autapses=x)),
    ("autapses", lambda x: nj.fan_out(KEY, 4, 4, 0.5, autapses=x)),
    ("autapses", lambda x: nj.bernoulli(KEY, 4, 4, 0.5, autapses=x)),
    ("autapses", lambda x: nj.blocks(KEY, [4], [4], [[0.5]], autapses=x)),
    ("autapses", lambda x: nj.watts_strogatz(KEY, 8, 8, 2, 0.5, autapses=x)),
    ("autapses", lambda x: nj.watts_strogatz(KEY, 8, 4, 2, 0.5, autapses=x)),
    ("autapses", lambda x: nj.watts_strogatz_grid(KEY, (4, 4), 4, 0.5, autapses=x)),
    ("autapses", lambda x: nj.distance_dependent(KEY, (8,), 2, STAIR, autapses=x)),
    ("autapses", lambda x: nj.rewire(KEY, RING, jnp.ones(RING.shape), 1, autapses=x)),
    ("autapses", lambda x: nj.Recurrence("dense", autapses=x)),
    ("plastic", lambda x: nj.Recurrence("dense", plastic=x)),
    ("plastic_hidden", lambda x: nj.structured(
        None, 3, [nj.Layer(4, nj.LIF())], 2, plastic_hidden=x)),
    ("plastic_readout", lambda x: nj.structured(
        None, 3, [nj.Layer(4, nj.LIF())], 2, plastic_readout=x)),
    ("directed", lambda x: nj.metrics.clustering(RING, directed=x)),
    ("directed", lambda x: nj.metrics.path_length(RING, directed=x)),
    ("keep_sign", lambda x: nj.ideal(keep_sign=x)),
    ("keep_sign", lambda x: nj.levels(0.1, keep_sign=x)),
    ("nearest", lambda x: nj.steps([1.0], dt=1.0, nearest=x)),
    ("minimal", lambda x: nj.triplet_hippocampus(minimal=x)),
    ("reset_trace", lambda x: nj.ThreeFactor(reset_trace=x)),
    ("learn", lambda x: NET.init(learn=x)),
    ("learn", lambda x: NET.step({"in": WIRING}, NET.init(), {}, dt=1.0, learn=x)),
    ("learn", lambda x: run(learn=x)),
    ("donate", lambda x: run(donate=x)),
    ("sort", lambda x: nj.data.events([0], [0], shape=(1, 2, 1), sort=x)),
    ("binary", lambda x: nj.data.bin_events(EVENTS, dt=1.0, binary=x)),
    ("binary", lambda x: nj.data.rasters([EVENTS], dt=1.0, binary=x)),
    ("tied", lambda x: learning.Equilibrium((3, 2, 2), TX, tied=x)),
    ("exact", lambda x: learning.Equilibrium((3, 2, 2), TX, exact=x)),
    ("recurrent", lambda x: learning.EProp((3, 2, 2), TX, recurrent=x)),
    ("normalised", lambda x: learning.CounterCurrent((3, 2, 2), TX, normalised=x)),
    ("central", lambda x: learning.Coordinates(central=x)),
    ("central", lambda x: learning.Neurons(central=x)),
    ("held", lambda x: nj.interchange.SteppedExponential(5.0, held=x)),
    ("progress", lambda x: nj.fit(
        learning.Perceptron((3, 2), learning.DFA(), TX), DATA, key=KEY, epochs=1, batch_size=2,
        progress=x)),
    ("adaptive", lambda x: hw.Train(8, adaptive=x)),
    ("adaptive", lambda x: hw.Single(8, adaptive=x)),
    ("discrete", lambda x: hw.Device(hw.linear(8), discrete=x)),
    ("discrete", lambda x: hw.PCM(discrete=x)),
    ("signed", lambda x: hw.Quantiser(4, signed=x)),
]  # fmt: skip


def run(**asked):
    return nj.simulate(
        NET, NET.init_weights(KEY), NET.init(), {"x": jnp.ones(2)}, n_steps=1, dt=1.0, **asked
    )


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(("name", "call"), ASKED, ids=[name for name, _ in ASKED])
def test_whatever_is_asked_by_yes_or_no_takes_no_other_answer(name, call):
    for answer in ("no", 1, np.zeros(2), np.array([True])):
        with pytest.raises(TypeError, match=rf"{name} must be True or False; got") as told:
            call(answer)
        assert "\n" not in str(told.value)


def test_a_truth_of_numpy_is_one():
    assert nj.Projection("x", "h", WIRING, plastic=np.bool_(False)).plastic is False
