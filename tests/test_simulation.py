"""What a run costs: programs compiled, memory, and what is drawn and kept in which step."""

import copy
import functools
import gc
import pickle

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from neurojax import recording
from neurojax.network import Layer, Network, Projection, fold
from neurojax.neurons import surrogate
from neurojax.neurons.leaky import LIF, LeakyIntegrator
from neurojax.neurons.sources import Poisson
from neurojax.simulation import simulate
from neurojax.synapses.receptors import Exponential
from neurojax.weights import Ideal
from neurojax.wiring.generators import fan_in
from neurojax.wiring.layouts import Dense

KEY = jax.random.key(0)
T = 12

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def one(n=3, **links):
    """A layer `h` of leaky integrators that hears `x`."""
    wiring = {"in": Projection("x", "h", Dense(n, n), w=jnp.eye(n))}
    return Network({"h": Layer(n, LeakyIntegrator(5.0))}, wiring | links)


NET = one()
WEIGHTS = NET.init_weights(KEY)
X = jnp.asarray(np.random.default_rng(0).random((T, 3)), float)


def run(probe=recording.outputs, x=X, weights=WEIGHTS, state=None, net=NET, dt=1.0, **options):
    state = net.init() if state is None else state
    options = {"n_steps": T} | options
    return simulate(net, weights, state, {"x": x}, dt=dt, probe=probe, **options)


@pytest.fixture(name="traces")
def _traces(monkeypatch):
    """How often `simulate` was traced, each of which is a compilation."""
    from neurojax import simulation

    count, plain = [], simulation._run

    def counted(*arguments, **keywords):
        count.append(arguments)
        return plain(*arguments, **keywords)

    def fresh(values, probe, arrays):  # a function that no other test has compiled
        return counted(*values, probe=probe.remake(arrays))

    monkeypatch.setattr(simulation, "_run", counted)
    monkeypatch.setattr(simulation, "_compiled", eqx.filter_jit(fresh))
    return count


# --- compiled once ---


def test_other_values_and_a_fresh_probe_compile_nothing(traces):
    halves = jax.tree.map(lambda x: x / 2, WEIGHTS)
    start = run(lambda r: r["h"].z.sum())[0]
    known = len(traces)
    changed = [
        {"x": 2 * X},
        {"weights": halves},
        {"state": start},
        {"dt": 0.5},
        {"dt": 2},
        {"net": one()},
    ]
    seen = [run(lambda r: r["h"].z.sum(), **each)[1] for each in changed]
    assert len(traces) == known
    assert len({float(x[-1]) for x in seen[:-1]}) == 5  # each counted
    run(lambda r: r["h"].z.sum(), key=KEY)
    run(lambda r: r["h"].z.sum(), key=jax.random.key(1))
    assert len(traces) == known + 1


SCALE, HELPED = 2.0, 1.0


def helper(x):
    return HELPED * x


class Mutable:
    factor = 2.0


BOX = Mutable()


def closing_over(k):
    return lambda r: k * r["h"].z


def indexed(i, k):
    return lambda r: k * r["h"].z[i]


def as_number(k):
    return lambda r: float(k) * r["h"].z


# What the same line of code may mean the next time: (probe, sets the value, compiles anew).
MEANINGS = {
    "a number closed over": (closing_over, None, True),
    "an array closed over": (lambda k: closing_over(jnp.full(3, k)), None, False),
    "an array of numpy": (lambda k: closing_over(np.full(3, k, np.float32)), None, True),
    "a default": (lambda k: eval("lambda r, k=k: k * r['h'].z", {"k": k}), None, True),
    "a keyword of partial": (
        lambda k: functools.partial(lambda r, k: k * r["h"].z, k=k), None, True,
    ),
    "a global": (lambda k: lambda r: SCALE * r["h"].z, "SCALE", True),
    "a function's global": (lambda k: lambda r: helper(r["h"].z), "HELPED", True),
    "a class member": (lambda k: lambda r: Mutable.factor * r["h"].z, "Mutable.factor", True),
    "an object's field": (lambda k: lambda r: BOX.factor * r["h"].z, "BOX.factor", True),
    "an index": (lambda k: indexed(jnp.arange(3), k), None, True),
    "a mask": (lambda k: indexed(jnp.ones(3, bool), k), None, True),
    "an array as a number": (lambda k: as_number(jnp.float32(k)), None, True),
}  # fmt: skip


@pytest.mark.parametrize("meaning", MEANINGS)
def test_a_probe_means_what_it_means_now(meaning, traces, monkeypatch):
    make, name, anew = MEANINGS[meaning]
    z = run(lambda r: r["h"].z)[1]
    for k in (2.0, 3.0, 2.0):
        if name:
            monkeypatch.setattr(f"{__name__}.{name}", k)
        np.testing.assert_allclose(run(make(k))[1], k * z, rtol=1e-6)
    assert len(traces) - 1 >= (2 if anew else 1)
    if name != "BOX.factor" and meaning != "an array as a number":
        assert len(traces) - 1 <= (2 if anew else 1)  # the third had been seen


def test_an_array_changed_in_place_is_read_anew():
    k = np.ones(3, np.float32)
    z, probe = run(lambda r: r["h"].z)[1], lambda r: k * r["h"].z
    run(probe)
    k[:] = 5
    np.testing.assert_allclose(run(probe)[1], 5 * z, rtol=1e-6)


def test_a_neuron_of_ones_own_means_what_it_means_now(traces, monkeypatch):
    class Scaled(eqx.Module):
        def init(self, shape, dtype=float):
            return jnp.zeros(shape, dtype)

        def step(self, state, current, *, dt):
            return SCALE * current, SCALE * current

    net = Network({"h": Layer(3, Scaled())}, NET.projections)
    for k, compiled in ((2.0, 1), (2.0, 1), (3.0, 2)):
        monkeypatch.setattr(f"{__name__}.SCALE", k)
        np.testing.assert_allclose(run(net=net)[1]["h"], k * X, rtol=1e-6)
        assert len(traces) == compiled


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["known", "anew"])
def test_many_calls_leave_nothing_behind(kind):
    backend = jax.devices()[0].client

    def programs():
        gc.collect()
        return len(backend.live_executables())

    def call():
        box = Mutable()
        return run((lambda r: r["h"].z) if kind == "known" else (lambda r: box.factor * r["h"].z))

    call()
    before = programs()
    call()
    assert programs() == before


def test_within_other_transforms_a_run_is_what_it_is_alone(traces):
    """vmap over samples, dt, weights; grad; jit of them: with values closed over."""
    probe = lambda r: r["h"].z.sum()  # noqa: E731
    xs, dts = jnp.stack([X, 2 * X]), jnp.array([0.5, 1.0])
    by_sample, by_dt = (lambda x: run(probe, x)[1]), (lambda dt: run(probe, dt=dt)[1])
    by_scale = lambda k: run(lambda r: k * r["h"].z.sum())[1].sum()  # noqa: E731
    alone = [jnp.stack([f(x) for x in v]) for f, v in ((by_sample, xs), (by_dt, dts))]
    for wrap in (lambda f: f, quick):
        np.testing.assert_allclose(wrap(jax.vmap(by_sample))(xs), alone[0], rtol=1e-6)
        np.testing.assert_allclose(wrap(jax.vmap(by_dt))(dts), alone[1], rtol=1e-5)
        gradient = wrap(jax.grad(by_scale))(1.5)  # linear in k
        np.testing.assert_allclose(gradient, by_scale(1.0), rtol=1e-6)
    known = len(traces)
    jax.vmap(by_sample)(3 * xs)
    assert len(traces) == known


# --- blocks ---


class Noisy(Ideal):
    """Weights that read differently each time; whole numbers, so that sums are exact."""

    def apply(self, s, *, key=None):
        noise = jax.random.randint(key, (self.connectivity.n_post,), -1, 2)
        return super().apply(s) + noise.astype(s.dtype)


def chain(spike=surrogate.heaviside):
    """x -> a, which fires -> b, on a loop; whole numbers as weights."""
    rng = np.random.default_rng(1)
    relay = LIF(tau_mem=0.05, r_mem=2.0, v_th=1.5, spike=spike)
    w = lambda *shape: jnp.asarray(rng.integers(-2, 3, shape), float)  # noqa: E731
    return Network(
        {"a": Layer(6, relay), "b": Layer(5, LIF(tau_mem=4.0, v_th=1.5, r_mem=4.0, spike=spike))},
        {
            "in": Projection("x", "a", Dense(4, 6), w=w(6, 4)),
            "still": Projection("u", "b", Dense(3, 5), w=w(5, 3)),
            "ab": Projection("a", "b", Dense(6, 5), w=w(5, 6)),
            "bb": Projection("b", "b", Dense(5, 5), delay=2, w=w(5, 5)),
        },
    )


LONG = 23
MOVING = jnp.asarray(np.random.default_rng(2).integers(0, 2, (LONG, 4)), float)


def long_run(monkeypatch, block, net=None, **options):
    monkeypatch.setattr("neurojax.network._WORTH_A_PASS", 1)
    monkeypatch.setattr("neurojax.simulation._BLOCK", block)
    net = chain() if net is None else net
    weights = net.init_weights(KEY, lambda w, c, key: Noisy(w, c))
    inputs = {"x": MOVING, "u": jnp.ones(3)}
    options = {"n_steps": LONG, "dt": 1.0, "key": KEY} | options
    inputs["x"] = inputs["x"][: options["n_steps"]]
    return quick(lambda state: simulate(net, weights, state, inputs, **options))(net.init())


@pytest.fixture(scope="module", name="whole")
def _whole():
    """Last state and outputs of a number of steps in one block, run once."""
    with pytest.MonkeyPatch.context() as patch:
        yield functools.cache(lambda n_steps: long_run(patch, 1000, n_steps=n_steps))


@pytest.mark.slow
@pytest.mark.parametrize(("block", "n_steps"), [(8, 23), (5, 20)])
def test_blocks_of_steps_change_nothing(monkeypatch, whole, block, n_steps):
    whole = whole(n_steps)
    assert 0.05 < whole[1]["a"].mean() < 0.95
    chex.assert_trees_all_equal(long_run(monkeypatch, block, n_steps=n_steps), whole)


@pytest.mark.parametrize(("every", "block"), [(4, 1000), (10, 3), (20, 8)])
def test_each_kth_step_is_kept_and_none_other(monkeypatch, whole, every, block):
    last, z = whole(20)
    state, kept = long_run(monkeypatch, block, n_steps=20, every=every)
    chex.assert_trees_all_equal(state, last)
    chex.assert_trees_all_equal(kept, jax.tree.map(lambda x: x[every - 1 :: every], z))


def test_a_gradient_goes_through_blocks(monkeypatch):
    net = chain(surrogate.fast_sigmoid(2.0))
    weights = net.init_weights(KEY)

    def gradient(block):
        monkeypatch.setattr("neurojax.simulation._BLOCK", block)

        def loss(w, x):
            held = weights | {"in": Ideal(w, weights["in"].connectivity)}
            inputs = {"x": x, "u": jnp.ones(3)}
            return simulate(net, held, net.init(), inputs, n_steps=LONG, dt=1.0)[1]["b"].sum()

        return quick(jax.grad(loss, (0, 1)))(weights["in"].w, MOVING)

    whole = gradient(1000)
    assert all(np.abs(g).max() > 0.01 for g in whole)
    # the same sums in another order, LONG steps of some ten terms each
    chex.assert_trees_all_close(gradient(8), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("every", [1, 512])
def test_memory_beyond_what_is_kept_does_not_grow_with_time(every):
    n = 64
    net = Network({"h": Layer(n, LIF())}, {"in": Projection("x", "h", Dense(8, n))})
    weights = jax.eval_shape(lambda: net.init_weights(KEY))

    def temporary(steps):
        def seen(weights, x):
            mean = lambda r: r["h"].neuron.v.mean()  # noqa: E731
            options = dict(n_steps=steps, dt=0.1, probe=mean, every=every)
            return simulate(net, weights, net.init(), {"x": x}, **options)[1]

        x = jax.ShapeDtypeStruct((steps, 8), jnp.uint8)
        return quick(seen).lower(weights, x).compile().memory_analysis().temp_size_in_bytes

    few, many = temporary(2048), temporary(16384)
    assert few < 4 * n * 1024  # currents of a block or two, not of 2048 steps
    assert many <= few + 4 * (16384 // 512)  # one number a block


def test_runs_of_a_block_and_less_are_one_plain_scan():
    """No loop within a loop: what short runs cost stays as it was."""
    jaxpr = str(jax.make_jaxpr(lambda x: run(x=x)[1])(X))
    assert jaxpr.count("scan[") == 1
    held = jax.make_jaxpr(lambda x: run(x=x, n_steps=5000)[1])(X[0])
    assert str(held).count("scan[") == 1  # nor where no input moves


# --- noise of reading what is held ---


class Reading(eqx.Module):
    current: jax.Array
    sigma: jax.Array

    def read(self, *, key):
        return self.current + self.sigma * jax.random.normal(key, self.current.shape)


class Device(Ideal):
    """Numbers that read with independent noise of 10% of one weight."""

    def hold(self, s):
        sigma = 0.1 * jnp.sqrt(Dense(*self.w.shape[::-1]).apply(jnp.ones_like(self.w), s**2))
        return Reading(super().apply(s), sigma)

    def apply(self, s, *, key=None):
        return super().apply(s) if key is None else self.hold(s).read(key=key)


def test_an_input_that_is_held_is_read_anew_in_each_step():
    steps, s = 4000, jnp.array([1.0, 2.0, 2.0])
    relay = LeakyIntegrator(1e-3)  # its output is the current of the step
    net = Network({"h": Layer(2, relay)}, {"in": Projection("x", "h", Dense(3, 2))})
    weights = net.init_weights(KEY, lambda w, c, key: Device(w, c))
    options = dict(n_steps=steps, dt=1.0, key=KEY)
    y = simulate(net, weights, net.init(), {"x": s}, **options)[1]["h"]
    noise = np.asarray(y) - np.asarray(weights["in"].apply(s))
    # sigma^2 = .01 sum s^2 = .09; 4 standard errors of a standard deviation, a mean, a correlation
    assert noise.std(0) == pytest.approx(0.3, rel=4 / np.sqrt(2 * steps))
    assert noise.mean(0) == pytest.approx(0, abs=4 * 0.3 / np.sqrt(steps))
    lagged = (noise[1:] * noise[:-1]).mean(0) / 0.09
    assert lagged == pytest.approx(0, abs=4 / np.sqrt(steps))

    moving = jnp.broadcast_to(s, (40, 3))
    options |= {"n_steps": 40}
    again = simulate(net, weights, net.init(), {"x": moving}, **options)[1]["h"]
    np.testing.assert_allclose(y[:40], again, rtol=1e-5, atol=1e-6)
    quiet = simulate(net, weights, net.init(), {"x": s}, **options | {"key": None})[1]["h"]
    np.testing.assert_allclose(quiet, np.broadcast_to(weights["in"].apply(s), (40, 2)), rtol=1e-6)


# --- dt, keys, names ---


@pytest.mark.parametrize("dt", [0.25, 2.0])
def test_neuron_and_synapse_are_told_dt(dt):
    tau_syn, tau_mem = 5.0, 20.0
    layer = Layer(1, LIF(tau_mem=tau_mem, v_th=100.0), Exponential(tau_syn))
    w = jnp.full((1, 1), 3.0)
    net = Network({"h": layer}, {"in": Projection("x", "h", Dense(1, 1), w=w)})
    pulse = jnp.zeros((T, 1)).at[0].set(1.0)
    probe = lambda r: (r["h"].neuron.v[0], r["h"].synapse.i[0], r["h"].arrivals[0])  # noqa: E731
    weights = net.init_weights(KEY)
    v, i, arrived = simulate(net, weights, net.init(), {"x": pulse}, n_steps=T, dt=dt, probe=probe)[
        1
    ]
    t = dt * np.arange(T)  # since the arrival, at the end of its step
    decays = np.exp(-t / tau_syn) - np.exp(-t / tau_mem)
    # tolerances: float32 rounding, a few digits lost where the exponentials cancel
    np.testing.assert_allclose(v, 3 * tau_syn / (tau_syn - tau_mem) * decays, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(i, 3 * np.exp(-t / tau_syn), rtol=1e-5)
    np.testing.assert_array_equal(arrived, 3.0 * (np.arange(T) == 0))


def test_names_of_one_length_and_what_makes_weights_have_keys_of_their_own():
    links = {n: Projection("x", "h", Dense(3, 3)) for n in ("ab", "cd")}
    made = {}

    def make(w, connectivity, key):
        made[len(made)] = jax.random.normal(key, w.shape) / np.sqrt(3)
        return Ideal(w, connectivity)

    weights = one(**links).init_weights(KEY, make)
    drawn = [*made.values(), *(weights[n].w for n in links)]
    for i, a in enumerate(drawn):
        assert all(not np.isclose(a, b).any() for b in drawn[:i])
    assert fold(None, "ab") is None


def test_a_layer_and_a_projection_of_one_name_draw_apart():
    class Drawn(eqx.Module):
        """Its output is the first number of its key, beside its current."""

        def init(self, shape, dtype=float):
            return jnp.zeros(shape, dtype)

        def step(self, state, current, *, dt, key):
            return state, current - jax.random.normal(key, current.shape)

    class Draws(Ideal):
        def apply(self, s, *, key=None):
            return jax.random.normal(key, s.shape)

    loop = Projection("h", "h", Dense(3, 3), delay=1)
    net = Network({"h": Layer(3, Drawn())}, {"h": loop})
    weights = net.init_weights(KEY, lambda w, c, key: Draws(w, c))
    z = simulate(net, weights, net.init(), {}, n_steps=2, dt=1.0, key=KEY)[1]["h"]
    assert np.abs(z).min() > 1e-6
    with pytest.raises(ValueError, match="key must be given, as layer 'h', a Drawn, draws"):
        simulate(net.without("h"), {}, net.init(), {}, n_steps=2, dt=1.0)


def test_a_delay_of_one_step_ties_two_layers(monkeypatch):
    monkeypatch.setattr("neurojax.network._WORTH_A_PASS", 1)

    def linked(delay):
        links = {"ab": Projection("a", "b", Dense(3, 3), delay, w=jnp.eye(3))}
        links["in"] = Projection("x", "a", Dense(3, 3), w=jnp.eye(3))
        relay = LIF(tau_mem=0.05, r_mem=2.0)
        return Network({"a": Layer(3, relay), "b": Layer(3, relay)}, links)

    assert linked(0).groups() == (("a",), ("b",))
    assert linked(1).groups() == linked(2).groups() == (("a", "b"),)
    net = linked(1)
    z = run(net=net, weights=net.init_weights(KEY), x=(X > 0.5).astype(float))[1]
    np.testing.assert_array_equal(z["b"][1:], z["a"][:-1])
    assert z["a"].any()
    assert not z["b"][0].any()


class Chancy(Noisy):
    """Weights that change by chance too."""

    def program(self, dw, *, key=None):
        return super().program(jnp.sign(dw) * jnp.round(3 * jax.random.uniform(key, dw.shape)))


@functools.cache
def chancy():
    """Chance wherever a run may meet it, in whole numbers, and the inputs of a run."""
    w = jnp.full((3, 3), 8.0)
    ends = {"source": ("noise", "h"), "moves": ("x", "h"), "out": ("h", "o"), "held": ("y", "h")}
    links = {n: Projection(*e, Dense(3, 3), plastic=False, w=w) for n, e in ends.items()}
    release = nj.Quantal(n_sites=8)
    links["sent"] = Projection("x", "o", Dense(3, 3), release=release, plastic=False, w=w)
    links["loop"] = Projection("o", "o", Dense(3, 3), delay=1, rule=nj.STDP(tau_plus=20.0), w=w)
    layers = {"noise": Layer(3, Poisson(200.0))} | {n: Layer(3, LIF()) for n in "ho"}
    net = Network(layers, links)
    given = {"x": (X > 0.4).astype(float), "y": jnp.ones(3)}
    return net, net.init_weights(KEY, lambda w, c, key: Chancy(w, c)), given


def test_a_run_that_goes_on_draws_what_the_run_in_one_draws(monkeypatch):
    monkeypatch.setattr("neurojax.simulation._BLOCK", 5)
    net, weights, given = chancy()
    probe = lambda r: {k: (r[k].neuron, r[k].z) for k in r}  # noqa: E731
    options = {"dt": 1.0, "key": KEY, "probe": probe, "learn": True}

    @quick
    def goes(weights, state, x, start):
        inputs, n_steps = given | {"x": x}, len(x)
        return simulate(net, weights, state, inputs, n_steps=n_steps, start=start, **options)

    *whole, seen = goes(weights, net.init(learn=True), given["x"], 0)
    *half, begun = goes(weights, net.init(learn=True), given["x"][:6], 0)
    *pieces, rest = goes(*half, given["x"][6:], 6)
    chex.assert_trees_all_equal(pieces, whole)
    joined = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), begun, rest)
    chex.assert_trees_all_equal(joined, seen)
    assert seen["o"][1].any()
    assert not jnp.array_equal(whole[0]["loop"].w, weights["loop"].w)
    *_, again = goes(*half, given["x"][6:], 0)
    for name, x in {"noise": 1, "h": 0, "o": 0}.items():  # each hears chance of its own
        told, same = (jax.tree.leaves(r[name][x])[0] for r in (rest, again))
        assert not jnp.array_equal(told, same)


def test_where_a_run_starts_compiles_nothing_and_maps(traces):
    net = Network({"noise": Layer(3, Poisson(200.0))}, {})
    goes = lambda start: simulate(  # noqa: E731
        net, {}, net.init(), {}, n_steps=T, dt=1.0, key=KEY, start=start
    )[1]["noise"]
    each = [goes(start) for start in (0, 3, jnp.int32(12))]
    assert len(traces) == 1
    mapped = jax.vmap(goes)(jnp.array([0, 3, 12]))
    np.testing.assert_array_equal(mapped, each)
    np.testing.assert_array_equal(each[0][3:], each[1][:-3])
    # Of a callback that fails, older versions of JAX make a ValueError.
    with pytest.raises((RuntimeError, ValueError), match="start must be a whole number >= 0"):
        jax.vmap(goes)(jnp.array([0, -3, 12]))


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (-1, "start must be a whole number >= 0; got -1"),
        (2.0, "start must be a whole number >= 0; got 2.0"),
        (True, "start must be a whole number >= 0; got True"),
        (2**31 - 12, "start must be <= 2147483635 before 12 steps; got 2147483636"),
    ],
)
def test_refuses_a_start_that_is_no_step(start, told):
    with pytest.raises(ValueError, match=told):
        run(start=start)


def test_refuses_a_traced_start_of_another_kind():
    begun = lambda start: run(start=start)[1]["h"]  # noqa: E731
    with pytest.raises(ValueError, match=r"start must be one whole number; got float32\[\]"):
        jax.eval_shape(begun, jnp.float32(3.0))


# --- what a network says of itself ---


def test_a_network_says_what_it_is_made_of():
    wiring = fan_in(KEY, 128, 10, 0.25)
    net = Network(
        {"h": Layer(128, LIF(), Exponential(5.0), winners=9), "noise": Layer(1000, Poisson(9.0))},
        {
            "in": Projection("x", "h", Dense(64, 128), plastic=False),
            "loop": Projection("h", "h", Dense(128, 128, jnp.eye(128, dtype=int)), delay=3),
        },
    )
    assert repr(net).splitlines() == [
        "Network: 2 layers, 1,128 neurons, 8,320 synapses",
        "  h: 128 LIF, synapse Exponential, 9 winners",
        "  noise: 1,000 Poisson",
        "  in: x -> h, Dense 64 x 128, 8,192 synapses, fixed",
        "  loop: h -> h, Dense 128 x 128, 128 synapses, delay 3, plastic",
    ]
    assert repr(Projection("h", "o", wiring)) == (
        "Projection: h -> o, FanIn 128 x 10, 320 synapses, plastic"
    )
    jax.jit(lambda net: repr(net) and None)(net)  # traced, where no synapse can be counted


def test_a_network_and_its_state_pickle_and_copy_to_equal_ones():
    net = chain(surrogate.fast_sigmoid(2.0))
    for x in (net, net.layers["a"], net.projections["bb"], net.init(), net.init_weights(KEY)):
        for again in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
            assert jax.tree.structure(again) == jax.tree.structure(x)
            chex.assert_trees_all_equal(again, x)
    for probe in (recording.potential("a", [0, 2]), recording.spikes("a"), recording.current("b")):
        assert pickle.loads(pickle.dumps(probe)) == probe


@pytest.mark.slow
@pytest.mark.parametrize("learns", [False, True])
def test_a_long_run_is_its_short_pieces_bit_for_bit(learns):
    """A thousand steps and more are compiled another way."""
    key, rule = jax.random.key(0), nj.STDP(tau_plus=20.0) if learns else None
    wiring = nj.fan_out(key, 40, 40, 0.2).with_columns()
    net = nj.Network(
        {"h": nj.Layer(40, nj.LIF(t_ref=2.0), nj.Exponential(5.0))},
        {
            "in": nj.Projection("x", "h", nj.Dense(40, 40), gain=2.5, plastic=False),
            "loop": nj.Projection("h", "h", wiring, delay=1, gain=0.5, rule=rule, plastic=learns),
        },
    )
    weights, x = net.init_weights(key), {"x": jax.random.uniform(key, (40,))}
    run = functools.partial(nj.simulate, net, dt=0.5, learn=learns)
    pieces, state, seen = weights, net.init(learn=learns), []
    for n in (999, 502):
        *end, z = run(pieces, state, x, n_steps=n)
        state, pieces = end[-1], end[0] if learns else pieces
        seen.append(z["h"])
    *whole, z = run(weights, net.init(learn=learns), x, n_steps=1501)
    assert 100 < z["h"].sum() < 0.5 * z["h"].size
    np.testing.assert_array_equal(z["h"], jnp.concatenate(seen))
    assert eqx.tree_equal(whole[-1], state)
    assert not learns or eqx.tree_equal(whole[0], pieces)
