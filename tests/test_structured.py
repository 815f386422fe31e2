"""The structured network: who connects to whom, how strongly, and that merging loses nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import connectivity as wiring

from neurojax.connectivity import fan_in
from neurojax.feedback import broadcast
from neurojax.layouts import Band, FanIn
from neurojax.learning import wta_broadcast as wb
from neurojax.network import Layer, Network, Projection, fold, simulate
from neurojax.neurons import LIF, LeakyIntegrator
from neurojax.plasticity import Homeostasis, ThreeFactor
from neurojax.structured import Recurrence, structured
from neurojax.teaching import SoftWTA

KEY = jax.random.key(0)

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def built(sizes=(40, 30), classes=4, **options):
    hidden = [Layer(n, LIF(9.0, 4.0), rule=ThreeFactor(0.9)) for n in sizes]
    return quick(lambda key: structured(key, 6, hidden, classes, **options))(KEY)


def test_layers_follow_one_another_and_the_readout_hears_them_all():
    net = built(density=0.2, population=5, recurrence=Recurrence(radius=4, p_rewire=0.25))
    ends = {name: (p.pre, p.post, p.delay) for name, p in net.projections.items()}
    assert ends == {
        "input->h1": ("input", "h1", 0),
        "h1->h2": ("h1", "h2", 0),
        "h1->h1": ("h1", "h1", 1),
        "h2->h2": ("h2", "h2", 1),
        "h1->h1 far": ("h1", "h1", 1),
        "h2->h2 far": ("h2", "h2", 1),
        "h1->readout": ("h1", "readout", 0),
        "h2->readout": ("h2", "readout", 0),
    }
    assert set(net.projections) - set(net.plastic()) == {"h1->h1 far", "h2->h2 far"}
    for name, n in (("h1", 40), ("h2", 30)):
        near, far = net.projections[f"{name}->{name}"], net.projections[f"{name}->{name} far"]
        assert isinstance(near.connectivity, Band)
        assert isinstance(far.connectivity, FanIn)
        np.testing.assert_array_equal(near.connectivity.fan_in + far.connectivity.fan_in, 8)
        count = np.asarray(net.projections[f"{name}->readout"].connectivity.count)
        np.testing.assert_array_equal(count.sum(1), 5 * round(0.2 * n))
        assert count.max() <= 5
    # a leaky integrator that divides by the part of a layer that its population hears
    readout = net.layers["readout"]
    assert readout.n == 4
    assert readout.neuron.r_mem == pytest.approx(1 / (0.2 * 5))
    assert readout.neuron.decay(1.0) == pytest.approx(0.9)


def test_recurrent_weights_are_as_strong_rewired_or_not():
    """Variance of the current for independent inputs: gain squared, whatever the kind."""
    loops = [Recurrence("dense", gain=0.7)]
    loops += [Recurrence(radius=15, p_rewire=p, gain=0.7) for p in (0.3, 1.0)]

    @quick
    def power(key):
        def of(loop):
            drawn = loop.projections(key, "h", 200)
            made = {n: (p, p.initial(fold(key, n))) for n, p in drawn.items()}
            return sum(jnp.square(p.connectivity.matrix(w)).sum() / 200 for p, w in made.values())

        return [of(loop) for loop in loops]

    # at least 200 * 30 squares of Gaussian numbers: 4 standard errors
    np.testing.assert_allclose(power(KEY), 0.7**2, rtol=4 * np.sqrt(2 / 6000))


@pytest.mark.parametrize(
    ("options", "plastic"),
    [
        (dict(recurrence=Recurrence("none")), {"input->h1", "h1->readout"}),
        (dict(recurrence=Recurrence("dense")), {"input->h1", "h1->readout", "h1->h1"}),
        (
            dict(recurrence=Recurrence("dense", plastic=False), plastic_readout=False),
            {"input->h1"},
        ),
        (dict(recurrence=Recurrence("none"), plastic_hidden=False), {"h1->readout"}),
    ],
)
def test_what_learns_is_what_was_asked_for(options, plastic):
    net = built((12,), **options)
    assert set(net.plastic()) == plastic
    w = net.init_weights(KEY)["h1->readout"].w
    # a readout that learns starts from nothing; one that does not must be worth something
    assert np.any(w) == (options.get("plastic_readout") is False)


def test_spiking_populations_inhibit_those_of_other_classes_alone():
    classes, population, inhibition, density = 3, 4, 2.0, 0.5
    net = built(
        (20,), classes, density=density, population=population, readout=LIF(tau_mem=0.05),
        inhibition=inhibition, recurrence=Recurrence("none"),
    )  # fmt: skip
    assert net.layers["readout"].n == classes * population
    weights = quick(lambda net: net.init_weights(KEY))(net)
    np.testing.assert_array_equal(weights["h1->readout"].connectivity.fan_in, density * 20)
    assert "readout->readout" not in net.plastic()
    # what all rivals together take from a neuron's potential in one step
    probe = lambda records: records["readout"].neuron.v  # noqa: E731
    state = net.init()
    fired = jnp.asarray(np.arange(12) >= population, float)  # all but those of class 0
    state = state._replace(sent=state.sent | {"readout": fired})
    options = dict(n_steps=1, dt=1.0, probe=probe)
    v = simulate(net, weights, state, {"input": jnp.zeros(6)}, **options)[1][0]
    expected = np.repeat([-inhibition, -inhibition / 2, -inhibition / 2], population)
    np.testing.assert_allclose(v, expected, rtol=1e-5)


@pytest.mark.usefixtures("x64")
def test_a_population_that_is_merged_learns_as_its_copies_do():
    n, classes, population, density = 20, 3, 4, 0.3
    hidden = Layer(n, LIF(9.0, 4.0), rule=ThreeFactor(0.9))

    @quick
    def wired(key):
        return structured(
            key, 6, [hidden], classes, density=density, population=population,
            recurrence=Recurrence("none"),
        ), fan_in(fold(key, "h1->readout"), n, classes * population, density)  # fmt: skip

    one, fan = wired(KEY)
    readout = one.layers["readout"]
    copies = Layer(
        classes * population,
        LeakyIntegrator(readout.neuron.tau_mem, readout.neuron.r_mem * population),
        rule=readout.rule,
    )
    links = one.projections | {"h1->readout": Projection("h1", "readout", fan, gain=0.0)}
    many = Network(one.layers | {"readout": copies}, links)
    x = jnp.asarray(np.random.default_rng(0).random((6, 6)))

    def train(net):
        feedback = {"h1": broadcast(KEY, n, classes)}
        system = wb.System(
            net,
            feedback,
            SoftWTA(),
            Homeostasis(),
            n_steps=8,
            start=0,
            population=net.layers["readout"].n // classes,
        )
        tx = optax.sgd(0.1, 0.9)

        def step(state, _):
            return wb.train_step(system, tx, state, x, jnp.arange(6) % classes)

        return jax.lax.scan(step, wb.init(system, tx, KEY), None, length=6)

    state, outcome = jax.device_get(quick(train)(one))
    state_many, outcome_many = jax.device_get(quick(train)(many))
    np.testing.assert_allclose(outcome.scores, outcome_many.scores, rtol=1e-9, atol=1e-12)
    assert np.ptp(outcome.scores[-1]) > 0.01
    merged, copied = (s.weights["h1->readout"] for s in (state, state_many))
    together = wiring.matrix(fan, copied.w).reshape(classes, population, n).sum(1)
    np.testing.assert_allclose(merged.w * merged.connectivity.count, together, atol=1e-12)
    np.testing.assert_allclose(
        state.weights["input->h1"].w, state_many.weights["input->h1"].w, atol=1e-12
    )


def test_wiring_of_a_layer_does_not_depend_on_the_others():
    loop = Recurrence(radius=4, p_rewire=0.25)
    one, two = built((40,), recurrence=loop), built((40, 30), recurrence=loop)
    for name in ("h1->h1", "h1->h1 far", "h1->readout"):
        pair = (jax.tree.leaves(net.projections[name].connectivity) for net in (one, two))
        assert all(np.array_equal(a, b) for a, b in zip(*pair, strict=True))
    near = [two.projections[f"{n}->{n} far"].connectivity.index[:30] for n in ("h1", "h2")]
    assert not np.array_equal(*near)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(density=0.0, recurrence=Recurrence("none")), r"density must be in \(0, 1\]; got 0.0"),
        (
            dict(density=1.01, recurrence=Recurrence("none")),
            r"density must be in \(0, 1\]; got 1.01",
        ),
        (dict(recurrence=Recurrence(radius=20)), r"radius must be in \[1, 19\] for 40 .*; got 20"),
        (
            dict(recurrence=Recurrence(radius=4, p_rewire=2.0)),
            r"p_rewire must lie in \[0, 1\]; got 2.0",
        ),
    ],
)
def test_refuses_what_cannot_be_built(options, message):
    with pytest.raises(ValueError, match=message):
        structured(KEY, 6, [Layer(40, LIF())], 4, **options)


def test_refuses_an_unknown_kind_of_recurrence():
    with pytest.raises(ValueError, match="recurrence must be 'local' or .*; got 'random'"):
        Recurrence("random")
