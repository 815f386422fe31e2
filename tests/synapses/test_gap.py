"""Gap junctions against closed forms of passive cells, on every layout."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from oracles import connectivity as wiring

from neurojax.layers import Layer, Projection, potential
from neurojax.network import Network
from neurojax.neurons.leaky import LIF, LeakyIntegrator
from neurojax.neurons.nonlinear import AdEx
from neurojax.neurons.sources import Poisson
from neurojax.simulation import simulate
from neurojax.synapses.gap import GapJunctions
from neurojax.synapses.receptors import Exponential
from neurojax.weights import Ideal
from neurojax.wiring.layouts import Dense
from neurojax.wiring.sparse import by_sender

TAU, R = 20.0, 100.0  # ms, MOhm: a leak of .01 uS and .2 nF
PAIR = GapJunctions("h", "h", Dense(2, 2), 2.0**-7)


@jax.jit
def passive(gap, v, dt, steps):
    """Cells that leak towards 0 mV, after so many steps."""
    cell = LeakyIntegrator(TAU, R)

    def step(_, state):
        return cell.step(state, gap.current(state.v), dt=dt)[0]

    start = cell.init(v.shape, v.dtype)._replace(v=v)
    return jax.lax.fori_loop(0, steps, step, start).v


@pytest.mark.usefixtures("x64")
def test_of_two_cells_the_mean_leaks_and_the_difference_faster():
    """The mean with tau, the difference with tau / (1 + 2 g / g_leak): first order in dt."""
    start, off = jnp.array([10.0, 4.0]), []
    for n in (40, 80, 160):
        v = np.asarray(passive(PAIR, start, 10.0 / n, n))
        np.testing.assert_allclose(v.mean(), 7.0 * math.exp(-10 / TAU), rtol=1e-12)
        decay = math.exp(-10 / n / TAU)
        by_steps = (decay - (1 - decay) * 2 * R / 128) ** n
        np.testing.assert_allclose(v[0] - v[1], 6.0 * by_steps, rtol=1e-12)
        off.append(v[0] - v[1] - 6.0 * math.exp(-10 / TAU * (1 + 2 * R / 128)))
    np.testing.assert_allclose(np.log2(np.abs(off[:-1]) / np.abs(off[1:])), 1, atol=0.05)


@pytest.mark.usefixtures("x64")
def test_in_two_parts_it_is_stable_at_any_step_and_right_at_small_ones():
    """C dv/dt = -v / R + I - g v, exactly for what is held, as a neuron with a conductance does."""
    c, strong = TAU / R, GapJunctions("h", "h", Dense(2, 2), 1.0)

    @jax.jit
    def run(gap, dt, steps):
        def step(_, v):
            current, g = gap.heard(v)
            aim = current / (1 / R + g)
            return aim + (v - aim) * jnp.exp(-dt * (1 / R + g) / c)

        return jax.lax.fori_loop(0, steps, step, jnp.array([10.0, 4.0]))

    assert np.abs(run(strong, 5.0, 40)).max() < 10  # dt sum g / C is 50
    mean, half = 7.0 * math.exp(-10 / TAU), 3.0 * math.exp(-10 / TAU * (1 + 2 * R / 128))
    exact = [mean + half, mean - half]
    off = [np.abs(run(PAIR, 10 / n, n) - np.array(exact)).max() for n in (40, 80, 160)]
    np.testing.assert_allclose(np.log2(np.array(off[:-1]) / off[1:]), 1, atol=0.05)


@pytest.mark.parametrize("kind", ["counted", "events"])
def test_every_layout_gives_the_sum_over_its_synapses(kind):
    c, rng = wiring.example(kind), np.random.default_rng(0)
    g = rng.uniform(0, 0.1, c.shape)
    one, other = rng.normal(-60, 5, (2, c.n_pre))
    full = wiring.matrix(c, np.where(wiring.synapses(c)[2] > 0, g, 0))
    expected = (full * (one - other[:, None])).sum(1)
    gap = GapJunctions("h", "h", c, jnp.asarray(g, float))
    found = jax.jit(lambda v, u: gap.current(v, u))(*(jnp.asarray(x, float) for x in (one, other)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gap.total, full.sum(1), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("kind", ["counted", "events"])
def test_a_sum_that_is_kept_is_the_one_that_each_step_would_add_up(kind, dtype):
    c, rng = wiring.example(kind), np.random.default_rng(1)
    gap = GapJunctions("h", "h", c, jnp.asarray(rng.uniform(0, 0.1, c.shape), float))
    v = jnp.asarray(rng.normal(-60, 5, c.n_pre), dtype)
    kept = gap.with_total(v)
    for got, expected in zip(kept.heard(v), gap.heard(v), strict=True):
        np.testing.assert_array_equal(got, expected)
    current, g = eqx.tree_at(lambda x: x.g, kept, 0 * gap.g).heard(v)
    assert not current.any() and (g == gap.heard(v)[1]).all()  # it is kept indeed  # noqa: PT018


def test_a_run_is_that_of_steps_which_add_up_conductances_anew():
    net, dt = touching(0.003, (3, 2)), 0.5
    state, inputs = net.init(), {"xa": jnp.ones(1), "xb": jnp.zeros(1)}
    weights = net.init_weights(jax.random.key(0))
    step = lambda state, _: (net.step(weights, state, net.drive(weights, inputs), dt=dt)[0], None)  # noqa: E731
    expected = jax.jit(lambda state: jax.lax.scan(step, state, length=20)[0])(state)
    got = simulate(net, weights, state, inputs, n_steps=20, dt=dt)[0]
    jax.tree.map(np.testing.assert_array_equal, got, expected)
    assert float(got.neurons["b"].v[0]) != 0


@pytest.mark.usefixtures("x64")
def test_a_ring_of_passive_cells_follows_its_matrix():
    n, at = 6, np.arange(6)
    both = np.concatenate([at, at]), np.concatenate([(at + 1) % n, (at - 1) % n])
    gap = GapJunctions("h", "h", by_sender(*both, n, n, native=False), 0.003)
    v = np.random.default_rng(0).normal(size=n)
    laplace = np.roll(np.eye(n), 1, 0) + np.roll(np.eye(n), -1, 0) - 2 * np.eye(n)
    rates = (-np.eye(n) + R * 0.003 * laplace) / TAU
    exact = scipy.linalg.expm(10 * rates) @ v
    off = [np.abs(passive(gap, jnp.asarray(v), 10 / k, k) - exact).max() for k in (100, 200)]
    np.testing.assert_allclose(off[0] / off[1], 2, atol=0.05)
    assert off[1] < 1e-3
    np.testing.assert_allclose(gap.current(jnp.asarray(v)).sum(), 0, atol=1e-15)  # charge stays


def test_equal_potentials_pass_no_current_and_small_differences_all():
    gap = GapJunctions("h", "h", Dense(3, 3), jnp.full((3, 3), 0.1))
    assert not gap.current(jnp.full(3, -64.7)).any()
    v = jnp.array([-65.0, -65.0, -65.0 + 2.0**-10], jnp.float32)
    np.testing.assert_allclose(gap.current(v)[0], 0.1 * 2.0**-10, rtol=1e-6)
    assert gap.current(v.astype("bfloat16")).dtype == "bfloat16"


def test_refuses_what_would_overshoot():
    gap = GapJunctions("h", "h", Dense(2, 2), 0.05)  # .1 uS onto each
    gap.check(dt=0.1, c=0.2)
    with pytest.raises(
        ValueError, match=r"dt sum g / c of .* <= 1; got 2 at neuron 1: pass dt=0.5"
    ):
        gap.check(dt=1.0, c=jnp.array([0.2, 0.05]))
    with pytest.raises(ValueError, match="g must be finite and >= 0 uS; got -0.1"):
        GapJunctions("h", "h", Dense(2, 2), -0.1)
    with pytest.raises(ValueError, match=r"g must be one number or one a synapse, .*\(2, 2\)"):
        GapJunctions("h", "h", Dense(2, 2), jnp.ones(3))
    with pytest.raises(TypeError, match="connectivity must have apply, at_post; got int 3"):
        GapJunctions("h", "h", 3, 0.1)
    with pytest.raises(ValueError, match=r"v_pre must have shape \(2,\).*; got \(3,\)"):
        gap.current(jnp.ones(3), jnp.ones(2))


STILL = LIF(TAU, R, v_th=1000.0)


def touching(g, sizes=(1, 1), models=(STILL, STILL)):
    """Layers a and b, joined both ways, each with a current from outside."""
    layers = {n: Layer(k, model) for n, k, model in zip("ab", sizes, models, strict=True)}
    size = dict(zip("ab", sizes, strict=True))
    wires = {f"to {n}": Projection(f"x{n}", n, Dense(1, k)) for n, k in size.items()}
    gaps = {
        f"{pre}{post}": GapJunctions(pre, post, Dense(size[pre], size[post]), g)
        for pre, post in ("ab", "ba")
    }
    return Network(layers, wires, gaps)


def run(net, v, drive, dt, steps):
    """Records of a run from potentials `v` under currents `drive`, by layer."""
    state = net.init()
    put = {n: s._replace(v=jnp.full_like(s.v, v[n])) for n, s in state.neurons.items()}
    weights = {
        n: Ideal(jnp.ones(p.connectivity.shape), p.connectivity) for n, p in net.projections.items()
    }
    inputs = {f"x{n}": jnp.full(1, x) for n, x in drive.items()}
    told = {
        "n_steps": steps,
        "dt": dt,
        "probe": lambda r: {n: (x.neuron.v, x.z) for n, x in r.items()},
    }
    return simulate(net, weights, state._replace(neurons=put), inputs, **told)[1]


def test_a_check_under_jit_takes_on_trust_what_it_cannot_know():
    def run(v):
        GapJunctions("h", "h", Dense(2, 2), 0.05).check(dt=1.0, c=0.05)  # refused outside
        return v

    np.testing.assert_array_equal(jax.jit(run)(jnp.ones(2)), 1)


@pytest.mark.usefixtures("x64")
def test_in_a_network_the_difference_of_two_cells_decays_faster():
    """Of two layers, in one scan: first order in dt, stable at any step."""
    net, start, off = touching(2.0**-7), {"a": 10.0, "b": 4.0}, []
    assert net.groups() == (("a", "b"),)
    exact = 7.0 * math.exp(-10 / TAU) + 3.0 * math.exp(-10 / TAU * (1 + 2 * R / 128))
    for n in (40, 80):
        off.append(float(run(net, start, {"a": 0.0, "b": 0.0}, 10.0 / n, n)["a"][0][-1, 0]) - exact)
    np.testing.assert_allclose(np.log2(np.abs(off[:-1]) / np.abs(off[1:])), 1, atol=0.05)
    strong = run(touching(10.0), start, {"a": 0.0, "b": 0.0}, 1.0, 50)  # dt sum g / C is 50
    assert np.abs(strong["a"][0]).max() < 10


@pytest.mark.usefixtures("x64")
def test_junctions_add_up_and_stand_in_the_record():
    net = touching(0.01, (3, 2))
    twice = Network(net.layers, {}, net.gaps | {"more": net.gaps["ba"]})
    state = twice.init()
    state.neurons["b"] = state.neurons["b"]._replace(v=jnp.array([5.0, 7.0]))
    record = twice.step({}, state, {"a": jnp.ones(3)}, dt=0.1)[1]["a"]
    np.testing.assert_allclose(record.conductance, 2 * 0.01 * 2)
    np.testing.assert_allclose(record.current, 1 + 2 * 0.01 * 12)
    filtered = Layer(3, STILL, synapse=Exponential(5.0))
    filters = Network({"a": filtered, "b": net.layers["b"]}, {}, net.gaps)
    state = filters.step({}, filters.init(), {"a": jnp.ones(3)}, dt=0.1)[0]
    record = filters.step({}, state, {}, dt=0.1)[1]["a"]
    np.testing.assert_allclose(record.current, 50 * -math.expm1(-0.02), rtol=1e-12)  # the mean
    assert "ba: b -> a, Dense 2 x 3, g=0.01 uS" in repr(net)


def test_spikes_of_two_models_that_touch_are_those_of_a_loop():
    models = {"a": AdEx(), "b": LIF(10.0, 100.0, v_rest=-70.0, v_th=-50.0, v_reset=-60.0)}
    net = touching(0.002, (1, 1), tuple(models.values()))
    drive, g = {"a": 1.0, "b": 0.3}, jnp.full(1, 0.002)

    @jax.jit
    def stepped(states):
        v = {n: potential(m, states[n]) for n, m in models.items()}
        heard = {"a": drive["a"] + g * v["b"], "b": drive["b"] + g * v["a"]}
        return {n: m.step(states[n], heard[n], dt=0.1, conductance=g) for n, m in models.items()}

    start = net.init().neurons
    own, expected = start, []
    for _ in range(300):
        after = stepped(own)
        own, z = ({n: x[i] for n, x in after.items()} for i in (0, 1))
        expected.append([float(z[n][0]) for n in "ab"])
    found = run(net, {n: s.v[0] for n, s in start.items()}, drive, 0.1, 300)
    z = np.concatenate([found[n][1] for n in "ab"], 1)
    np.testing.assert_array_equal(z, expected)
    assert (z.sum(0) > 0).all()


def test_a_network_refuses_junctions_that_fit_no_layers():
    cells = {"a": Layer(2, LIF()), "x": Layer(2, Poisson(5.0))}
    join = lambda pre, post, n=2: GapJunctions(pre, post, Dense(n, 2), 0.1)  # noqa: E731
    for gap, told in (
        (join("a", "c"), r"gap junctions 'g' must join layers, \['a', 'x'\]; got 'c'"),
        (join("x", "a"), "'g' must join layers with a potential; the state of Poisson, layer 'x'"),
        (join("a", "a", 3), "gap junctions 'g' have 3 pre neurons; layer 'a' has 2"),
    ):
        with pytest.raises(ValueError, match=told):
            Network(cells, {}, {"g": gap})

    class Plain:
        def init(self, shape, dtype=float):
            return LIF().init(shape, dtype)

        def step(self, state, current, *, dt):
            return LIF().step(state, current, dt=dt)

    with pytest.raises(ValueError, match="take a conductance; Plain.step, layer 'a', takes none"):
        Network({"a": Layer(2, Plain())}, {}, {"g": join("a", "a")})
    with pytest.raises(TypeError, match="gap junction 'g' must be a GapJunctions; got Dense"):
        Network(cells, {}, {"g": Dense(2, 2)})


def test_layers_that_touch_run_together_however_large_what_else_joins_them():
    layers = {"a": Layer(300, STILL), "b": Layer(300, STILL)}
    wire = {"up": Projection("a", "b", Dense(300, 300))}
    assert Network(layers, wire).groups() == (("a",), ("b",))
    back = {"back": GapJunctions("b", "a", Dense(300, 300), 0.001)}
    assert Network(layers, wire, back).groups() == (("a", "b"),)
