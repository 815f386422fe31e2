"""The structured network: who connects to whom, how strongly, and that merging loses nothing."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracles import connectivity as wiring

from neurojax.learning import wta_broadcast as wb
from neurojax.network import Layer, Network, Projection, fold
from neurojax.neurons.leaky import LIF, LeakyIntegrator
from neurojax.plasticity.feedback import broadcast
from neurojax.plasticity.teaching import SoftWTA
from neurojax.plasticity.three_factor import Homeostasis, ThreeFactor
from neurojax.simulation import simulate
from neurojax.structured import Recurrence, structured
from neurojax.wiring.generators import fan_in
from neurojax.wiring.layouts import Band, FanIn

KEY = jax.random.key(0)

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def built(sizes=(40, 30), classes=4, **options):
    hidden = [Layer(n, LIF(9.0, 4.0), rule=ThreeFactor(0.9)) for n in sizes]
    return quick(lambda key: structured(key, 6, hidden, classes, **options))(KEY)


@pytest.mark.slow
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
    # what is heard is divided by its part, and a readout that fires must start from something
    assert net.layers["readout"].neuron.r_mem == pytest.approx(1 / density)
    assert np.std(weights["h1->readout"].w) > 0.1
    # what all rivals together take from a neuron's potential in one step
    probe = lambda records: records["readout"].neuron.v  # noqa: E731
    state = net.init()
    fired = jnp.asarray(np.arange(12) >= population, float)  # all but those of class 0
    state = state._replace(sent=state.sent | {"readout": fired})
    options = dict(n_steps=1, dt=1.0, probe=probe, learn=False)
    v = simulate(net, weights, state, {"input": jnp.zeros(6)}, **options)[1][0]
    expected = np.repeat([-inhibition, -inhibition / 2, -inhibition / 2], population)
    np.testing.assert_allclose(v, expected, rtol=1e-5)


@pytest.mark.slow
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


@pytest.mark.slow
def test_wiring_of_a_layer_does_not_depend_on_the_others():
    loop = Recurrence(radius=4, p_rewire=0.25)
    one = built((40,), recurrence=loop, density=0.5)
    two = built((40, 40), recurrence=loop, density=0.5)
    for name in ("h1->h1", "h1->h1 far", "h1->readout"):
        pair = (jax.tree.leaves(net.projections[name].connectivity) for net in (one, two))
        assert all(np.array_equal(a, b) for a, b in zip(*pair, strict=True))
    for part in ("{}->{}", "{}->{} far", "{}->readout"):
        pair = [two.projections[part.format(n, n)].connectivity for n in ("h1", "h2")]
        drawn = [jax.tree.leaves(c)[0] for c in pair]
        assert drawn[0].shape == drawn[1].shape
        assert not np.array_equal(*drawn), part


def strength(net, name, key=KEY):
    """Standard deviation of the initial weights, in parts of 1 / sqrt(fan-in)."""
    p = net.projections[name]
    return float(p.initial(key).std()) * p.connectivity.fan_in[0] ** 0.5


@pytest.mark.slow
def test_each_gain_reaches_its_own_weights():
    loop = Recurrence("dense", gain=0.25)
    net = built((80, 90, 85), gain_in=2.0, gain_forward=8.0, recurrence=loop)
    expected = {"input->h1": 2, "h1->h2": 8, "h2->h3": 8, "h1->h1": 0.25, "h3->h3": 0.25}
    for name, gain in expected.items():
        # at least 480 Gaussian numbers: 4 standard errors of their standard deviation
        assert strength(net, name) == pytest.approx(gain, rel=4 / np.sqrt(2 * 480)), name


@pytest.mark.slow
def test_a_readout_divides_by_what_it_hears_and_starts_from_something_if_it_spikes():
    loop, part = Recurrence("none"), 0.25
    lif = LIF(tau_mem=5.0, r_mem=3.0)
    spiking = built((120,), density=part, population=8, readout=lif, recurrence=loop)
    assert spiking.layers["readout"].neuron.r_mem == pytest.approx(3.0 / part)
    assert spiking.layers["readout"].neuron.tau_mem == 5.0
    assert strength(spiking, "h1->readout") == pytest.approx(1, rel=4 / np.sqrt(2 * 960))
    leaky = LeakyIntegrator(tau_mem=5.0, r_mem=3.0)
    silent = built((120,), density=part, population=8, readout=leaky, recurrence=loop)
    assert silent.layers["readout"].neuron.r_mem == pytest.approx(3.0 / (part * 8))
    assert strength(silent, "h1->readout") == 0


def test_dense_recurrence_leaves_autapses_out_when_asked():
    for autapses in (True, False):
        net = built((5,), recurrence=Recurrence("dense", autapses=autapses))
        c = net.projections["h1->h1"].connectivity
        np.testing.assert_array_equal(c.matrix(jnp.ones((5, 5))), 1 - (not autapses) * np.eye(5))


@pytest.mark.parametrize(
    ("n", "p_rewire", "radius"),
    [(200, 0.1, 16), (37, 0.1, 16), (32, 0.1, 14), (4, 0, 1), (5, 1, 1)],
)
def test_the_ring_of_a_small_layer_is_as_wide_as_fits(n, p_rewire, radius):
    (near, *_) = Recurrence(p_rewire=p_rewire).projections(KEY, "h", n).values()
    if p_rewire < 1:
        assert near.connectivity.radius == radius
    else:
        assert near.connectivity.shape == (n, 2 * radius)  # all far
    drawn = Recurrence(radius=radius, p_rewire=p_rewire).projections(KEY, "h", n)
    np.testing.assert_array_equal(
        *(jax.tree.leaves(x.connectivity)[0] for x in (near, next(iter(drawn.values()))))
    )


@pytest.mark.parametrize("recurrence", [Recurrence("dense"), Recurrence(p_rewire=0.0)])
def test_without_chance_no_key_is_needed(recurrence):
    net = structured(None, 6, [Layer(9, LIF())], 4, recurrence=recurrence)
    with_key = structured(KEY, 6, [Layer(9, LIF())], 4, recurrence=recurrence)
    assert eqx.tree_equal(net, with_key)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(density=0.0), r"density must be in \(0, 1\]; got 0.0"),
        (dict(density=1.01), r"density must be in \(0, 1\]; got 1.01"),
        (dict(density=1e-40), "r_mem / density must be finite and > 0 MOhm; got inf"),
        (
            dict(recurrence=Recurrence(radius=20)),
            r"layer 'h1': radius must be in \[1, 19\] for 40 neurons; got 20; pass another radius",
        ),
        (
            dict(hidden=[Layer(40, LIF()), Layer(2, LIF())], recurrence=Recurrence()),
            "layer 'h2': 2 neurons are too few for a ring; pass .* or Recurrence.'none'",
        ),
        (
            dict(recurrence=Recurrence(radius=19, p_rewire=0.5)),
            r"layer 'h1': p_rewire must be at most 0.0263, .*; got 0.5; pass another radius or p_r",
        ),
        (dict(recurrence=Recurrence), r"recurrence must be an instance; .*: pass Recurrence\(\)"),
        (dict(recurrence="dense"), "recurrence must have projections; got str 'dense'"),
        (dict(hidden=[]), r"hidden must hold at least one layer; got \[\]"),
        (dict(hidden=Layer(4, LIF())), r"hidden must be a list of layers; .*: pass \[layer\]"),
        (dict(hidden=[LIF()]), r"hidden\[0\] must be a Layer; got LIF.*: pass Layer\(n, LIF\(\)\)"),
        (dict(hidden=[Layer]), r"hidden\[0\] must be a Layer; got <class"),
        (dict(n_in=0), "n_in must be a whole number >= 1; got 0"),
        (dict(n_classes=1), "n_classes must be a whole number >= 2; got 1"),
        (dict(n_classes=2.5), "n_classes must be a whole number >= 2; got 2.5"),
        (dict(population=0), "population must be a whole number >= 1; got 0"),
        (dict(gain_in=-1.0), "gain_in must be finite and >= 0 nA; got -1.0"),
        (dict(gain_forward=np.nan), "gain_forward must be finite and >= 0 nA; got nan"),
        (dict(inhibition=-1.0), "inhibition must be finite and >= 0 nA; got -1.0"),
        (dict(readout=LIF), r"readout must be an instance; got the class: pass LIF\(\)"),
        (dict(key=0), r"key must be a JAX key; got 0: pass jax.random.key\(0\)"),
        (dict(key=None), "key must be a JAX key; got None"),
    ],
)
def test_refuses_what_cannot_be_built(options, message):
    given = dict(
        key=KEY, n_in=6, hidden=[Layer(40, LIF())], n_classes=4, density=0.5,
        recurrence=Recurrence("none"),
    )  # fmt: skip
    with pytest.raises((ValueError, TypeError), match=message):
        structured(**given | options)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recurrence("random"), "recurrence must be 'local' or .*; got 'random'"),
        (lambda: Recurrence("dense", 4), "radius needs recurrence 'local'; got 4 with 'dense'"),
        (lambda: Recurrence(fan_in=60), "fan_in needs recurrence 'grid'; got 60 with 'local'"),
        (lambda: Recurrence("none", delays=2), r"delays needs recurrence 'grid'; got \(2,\) with"),
        (lambda: Recurrence(radius=0), "radius must be a whole number >= 1; got 0"),
        (lambda: Recurrence(radius=2.5), "radius must be a whole number >= 1; got 2.5"),
        (lambda: Recurrence(p_rewire=2.0), r"p_rewire must lie in \[0, 1\]; got 2.0"),
        (lambda: Recurrence(gain=np.inf), "gain must be finite, in nA; got inf"),
    ],
)
def test_refuses_a_recurrence_that_is_none(make, message):
    with pytest.raises(ValueError, match=message):
        make()
