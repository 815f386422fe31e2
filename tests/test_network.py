"""When what arrives where, and what it costs to watch it."""

import functools
import re
from typing import Any, NamedTuple

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax._once import batch_last, once
from neurojax.network import Layer, Network, Projection, State
from neurojax.neurons import surrogate
from neurojax.neurons.leaky import ALIF, LIF, LeakyIntegrator
from neurojax.neurons.sources import Poisson
from neurojax.plasticity.stdp import STDP
from neurojax.plasticity.three_factor import ThreeFactor
from neurojax.simulation import simulate
from neurojax.synapses.receptors import Conductance, Exponential
from neurojax.synapses.release import TsodyksMarkram
from neurojax.weights import Ideal, ideal
from neurojax.wiring.generators import fan_in, locally_dense
from neurojax.wiring.layouts import Dense
from neurojax.wiring.sparse import by_sender

KEY = jax.random.key(0)
T = 24

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

RELAY = LIF(tau_mem=0.05, r_mem=2.0)  # forgets within a step: fires where a spike arrives


def one_to_one(pre, post, delay, n=5):
    return Projection(pre, post, Dense(n, n), delay=delay, w=jnp.eye(n))


drawn = quick(lambda net: net.init_weights(KEY))


def spikes(records):
    return {name: record.z for name, record in records.items()}


def test_a_spike_arrives_exactly_its_delay_later():
    """Named such that neither the alphabet nor the order of writing helps."""
    delays = {"b0": 0, "y1": 1, "a2": 2, "c5": 5}
    layers = {name: Layer(5, RELAY) for name in (*delays, "z", "m")}
    links = {"in": one_to_one("input", "z", 0), "far": one_to_one("b0", "m", 0)}
    links |= {f"to {name}": one_to_one("z", name, d) for name, d in delays.items()}
    net = Network(layers, links)
    assert net.order().index("z") < net.order().index("b0") < net.order().index("m")
    x = np.random.default_rng(0).random((T, 5)) < 0.3

    @quick
    def run(x):
        weights = net.init_weights(KEY)
        options = dict(n_steps=T, dt=1.0, probe=spikes)
        return simulate(net, weights, net.init(), {"input": x}, **options)[1]

    z = run(jnp.asarray(x, float))
    np.testing.assert_array_equal(z["z"], x)
    np.testing.assert_array_equal(z["m"], x)  # through two layers within one step
    for name, d in delays.items():
        np.testing.assert_array_equal(z[name], np.concatenate([np.zeros((d, 5)), x[: T - d]]))


def mixed():
    """Two layers of unlike neurons, with synapses, winners, delays, a held and a moving input."""
    near, far = locally_dense(KEY, 20, 3, 0.34)
    layers = {
        "h1": Layer(20, ALIF(8.0, 5.0), Exponential(4.0)),
        "h2": Layer(12, LIF(6.0, 5.0), winners=4),
        "out": Layer(3, LeakyIntegrator(9.0)),
    }
    links = {
        "x->h1": Projection("x", "h1", Dense(7, 20), gain=3.0),
        "u->h1": Projection("u", "h1", fan_in(KEY, 4, 20, 0.5), gain=2.0),
        "h1 near": Projection("h1", "h1", near, delay=1),
        "h1 far": Projection("h1", "h1", far, delay=3),
        "h1->h2": Projection("h1", "h2", Dense(20, 12), gain=4.0),
        "h2->h1": Projection("h2", "h1", fan_in(KEY, 12, 20, 0.3), delay=2),
        "h2->out": Projection("h2", "out", Dense(12, 3), delay=1),
    }
    net = Network(layers, links)
    return net, net.init_weights(KEY)


def run(net, weights, inputs):
    return simulate(
        net, weights, net.init(), inputs, n_steps=T, dt=1.0, probe=lambda records: records
    )


def test_a_batch_equals_samples_and_a_scan_equals_steps_and_held_equals_repeated_input():
    net, weights = quick(mixed)()
    rng = np.random.default_rng(0)
    x, u = (jnp.asarray(rng.random(s), float) for s in ((2, T, 7), (2, 4)))
    moving = quick(jax.vmap(lambda x, u: run(net, weights, {"x": x, "u": u})))(x, u)
    records = jax.device_get(moving[1])
    rates = {name: records[name].z.mean() for name in ("h1", "h2")}
    assert all(0.02 < r < 0.5 for r in rates.values())

    @quick
    def step(state, x, u):
        return net.step(weights, state, net.drive(weights, {"x": x, "u": u}), dt=1.0)

    for b in range(2):
        state = net.init()
        for t in range(T):
            state, now = step(state, x[b, t], u[b])
            then = jax.tree.map(lambda leaf, b=b, t=t: leaf[b, t], records)
            # no more than the rounding of the same sums in another order, T steps long
            chex.assert_trees_all_close(jax.device_get(now), then, rtol=1e-4, atol=1e-5)
        last = jax.tree.map(lambda leaf, b=b: leaf[b], jax.device_get(moving[0]))
        chex.assert_trees_all_close(jax.device_get(state), last, rtol=1e-4, atol=1e-5)

    repeated = jnp.repeat(u[:, None], T, axis=1)
    other = quick(jax.vmap(lambda x, u: run(net, weights, {"x": x, "u": u})))(x, repeated)
    chex.assert_trees_all_close(other, moving, rtol=1e-4, atol=1e-5)


class Noisy(Ideal):
    """Weights that read differently each time."""

    def apply(self, s, *, key=None):
        return super().apply(s) + jax.random.normal(key, (self.connectivity.n_post,))


def test_a_held_input_is_read_once_and_a_moving_one_anew_in_each_step():
    net = Network({"h": Layer(5, RELAY)}, {"in": one_to_one("input", "h", 0)})
    weights = net.init_weights(KEY, lambda w, connectivity, key: Noisy(w, connectivity))
    x = jnp.ones((T, 5))

    @quick
    def read(x, key):
        return net.drive(weights, {"input": x}, key=key)["h"]

    noise = np.asarray(read(x, KEY) - x)
    assert len(np.unique(noise)) == noise.size
    for t in (0, 5):
        expected = read(x[t], jax.random.fold_in(KEY, t)) - x[t]
        np.testing.assert_allclose(noise[t], expected, rtol=1e-6)


@pytest.mark.parametrize("asked", ["nothing", "spikes"])
def test_only_what_is_asked_for_is_kept(asked):
    n = 64
    net = Network({"h": Layer(n, LIF())}, {"in": Projection("input", "h", Dense(8, n))})
    weights = jax.eval_shape(lambda: net.init_weights(KEY))
    probe = (lambda records: None) if asked == "nothing" else spikes

    def memory(steps):
        def last(weights, x):
            state = net.init()
            return simulate(net, weights, state, {"input": x}, n_steps=steps, dt=1.0, probe=probe)

        stats = quick(last).lower(weights, jnp.zeros(8)).compile().memory_analysis()
        return stats.temp_size_in_bytes, stats.output_size_in_bytes

    (few_temp, few_out), (many_temp, many_out) = memory(1000), memory(5000)
    assert many_temp == few_temp
    kept = 0 if asked == "nothing" else 4 * n * (5000 - 1000)
    assert many_out - few_out == pytest.approx(kept, rel=0.01)


def test_current_through_a_synapse_moves_the_membrane_in_closed_form():
    tau_syn, tau_mem, w, at = 5.0, 20.0, 3.0, 4
    layer = Layer(1, LIF(tau_mem=tau_mem, r_mem=2.0, v_th=100.0), Exponential(tau_syn))
    net = Network(
        {"h": layer}, {"in": Projection("input", "h", Dense(1, 1), w=jnp.full((1, 1), w))}
    )
    pulse = jnp.zeros((T, 1)).at[at].set(1.0)
    probe = lambda records: records["h"].neuron.v  # noqa: E731
    weights = net.init_weights(KEY)
    v = simulate(net, weights, net.init(), {"input": pulse}, n_steps=T, dt=1.0, probe=probe)[1]
    since = np.maximum(np.arange(T) - at, 0)  # arrives at the end of its step
    decays = np.exp(-since / tau_syn) - np.exp(-since / tau_mem)
    expected = 2.0 * w * tau_syn / (tau_syn - tau_mem) * decays
    np.testing.assert_allclose(v[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_only_the_k_winners_fire_and_the_others_go_on_without_a_reset():
    n, k = 9, 2
    net = Network(
        {"h": Layer(n, LIF(tau_mem=10.0, r_mem=30.0), winners=k)},
        {"in": Projection("input", "h", Dense(n, n), w=jnp.eye(n))},
    )
    drive = jnp.asarray(np.random.default_rng(3).uniform(0.3, 1.0, n), float)
    probe = lambda records: records["h"]  # noqa: E731
    weights = net.init_weights(KEY)
    record = simulate(net, weights, net.init(), {"input": drive}, n_steps=T, dt=1.0, probe=probe)[1]
    v, z = np.asarray(record.neuron.v), np.asarray(record.z)
    np.testing.assert_array_equal(record.neuron.z, z)
    expected = np.zeros_like(z)
    for t in range(T):
        top = np.argsort(-v[t])[:k]
        expected[t, top] = v[t, top] >= 1.0
    np.testing.assert_array_equal(z, expected)
    assert (v >= 1.0).sum(1).max() > k  # there was somebody to hold back
    alpha = np.exp(-0.1)
    held = alpha * v[:-1] * (1 - z[:-1]) + (1 - alpha) * 30.0 * np.asarray(drive)
    np.testing.assert_allclose(v[1:], held, rtol=1e-5)


def loop_with(spike):
    layers = {"h": Layer(6, LIF(5.0, 4.0, spike=spike)), "out": Layer(2, LeakyIntegrator())}
    return Network(
        layers,
        {
            "in": Projection("input", "h", Dense(3, 6), gain=3.0),
            "loop": Projection("h", "h", Dense(6, 6), delay=2),
            "out": Projection("h", "out", Dense(6, 2)),
        },
    )


def loss(net):
    def of(w, name):
        weights = net.init_weights(KEY)
        weights[name] = Ideal(w, weights[name].connectivity)
        state = simulate(
            net, weights, net.init(), {"input": jnp.ones(3)},
            n_steps=9, dt=1.0, probe=lambda records: None,
        )[0]  # fmt: skip
        return jnp.square(state.neurons["out"].v).sum()

    return of


def test_the_default_spike_refuses_to_be_differentiated_within_a_network():
    net = loop_with(LIF().spike)
    weights = drawn(net)
    for transform in (jax.grad, jax.jacfwd, lambda f: functools.partial(jax.linearize, f)):
        for name in ("in", "loop"):
            with pytest.raises(TypeError, match="heaviside has no derivative: pass spike="):
                quick(transform(functools.partial(loss(net), name=name)))(weights[name].w)
    # what lies behind the spikes takes no derivative of them
    gradient = quick(jax.grad(functools.partial(loss(net), name="out")))
    assert np.any(gradient(weights["out"].w))


@pytest.mark.slow
def test_a_surrogate_differentiates_through_loops_and_delays():
    net = loop_with(surrogate.fast_sigmoid(2.0))
    for name in ("in", "loop"):
        w = drawn(net)[name].w
        gradient = quick(jax.grad(functools.partial(loss(net), name=name)))(w)
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_dtype_of_the_input_runs_through(dtype):
    with jax.enable_x64(True):

        def everything():
            net, _ = mixed()
            weights, state = net.init_weights(KEY, dtype=dtype), net.init(dtype)
            x, u = jnp.ones((T, 7), dtype), jnp.ones(4, dtype)
            return simulate(
                net, weights, state, {"x": x, "u": u}, n_steps=T, dt=1.0, probe=lambda r: r
            )

        leaves, _ = jax.tree.flatten_with_path(jax.eval_shape(everything))
        kept = {x.dtype for path, x in leaves if not getattr(path[-1], "name", "").endswith("_low")}
        assert kept == {jnp.dtype(dtype), jnp.dtype("int32")}


def test_another_projection_changes_no_weights_of_the_others():
    net, weights = quick(mixed)()
    without = drawn(net.without("h1 near"))
    assert set(without) == set(weights) - {"h1 near"}
    for name, held in without.items():
        np.testing.assert_array_equal(held.w, weights[name].w)
    assert not np.array_equal(weights["x->h1"].w[:12, :4], weights["u->h1"].w[:12, :4])
    assert net.plastic() == tuple(sorted(weights))
    assert net.external() == ("u->h1", "x->h1")
    assert set(net.internal()) == set(weights) - {"u->h1", "x->h1"}


def two(**links):
    return Network({"a": Layer(5, RELAY), "b": Layer(5, RELAY)}, links)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: two(ab=one_to_one("a", "b", 0), ba=one_to_one("b", "a", 0)),
            r"projections without delay form a loop: \['.', '.', '.'\]",
        ),
        (lambda: two(aa=one_to_one("a", "a", 0)), "projections without delay form a loop"),
        (
            lambda: two(ac=one_to_one("a", "c", 0)),
            r"projection 'ac' ends at 'c', which is no layer, \['a', 'b'\]",
        ),
        (
            lambda: two(ab=one_to_one("a", "b", 0, n=4)),
            "projection 'ab' has 4 pre neurons; layer 'a' has 5",
        ),
        (
            lambda: two(xb=one_to_one("input", "b", 0, n=4)),
            "projection 'xb' has 4 post neurons; layer 'b' has 5",
        ),
        (
            lambda: Network({"hidden": Layer(5, RELAY)}, {"x": one_to_one("x", "hiden", 0)}),
            "ends at 'hiden', which is no layer.*did you mean 'hidden'?",
        ),
        (
            lambda: Network({"p": Layer(5, Poisson(9.0))}, {"x": one_to_one("x", "p", 0)}),
            "projection 'x' must not end at layer 'p', a source, which hears none",
        ),
        (
            lambda: one_to_one("a", "b", -1),
            "delay must be one whole number .* got -1: pass",
        ),
        (
            lambda: one_to_one("a", "b", 1.5),
            r"delay must be one whole number of steps >= 0; got 1.5: pass delay=1 or delay=2",
        ),
        (lambda: one_to_one("a", "b", float("inf")), r"delay must be .*; got inf: pass delay=1"),
        (lambda: one_to_one("a", "b", jnp.arange(2)), r"delay must be .*; got Array\(\[0, 1\]"),
        (
            lambda: Projection("a", "b", Dense(5, 5), w=jnp.ones((5, 4))),
            r"w must have shape \(5, 5\); got \(5, 4\)",
        ),
        (
            lambda: Projection("a", "b", Dense(5, 5), w=0.5),
            r"w must have shape \(5, 5\); got \(\): pass jnp.full\(\(5, 5\), 0.5\)",
        ),
        (
            lambda: Projection("a", "b", Dense(1, 1), w=jnp.full((1, 1), jnp.nan)),
            "w must be finite; got NaN or infinity",
        ),
        (lambda: Layer(5, RELAY, winners=6), r"winners must be in \[1, 5\], the layer; got 6"),
        (lambda: Layer(5, RELAY, winners=0), "winners must be a whole number >= 1; got 0"),
        (lambda: Layer(5, RELAY, winners=2.0), "winners must be a whole number >= 1; got 2.0"),
        (
            lambda: Layer(5, LeakyIntegrator(), winners=2),
            "winners must be None unless .* v and z; that of LeakyIntegrator has no z",
        ),
        (lambda: Layer(5.0, RELAY), "n must be a whole number >= 1; got 5.0"),
    ],
)
def test_refuses_networks_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Layer(5, LIF), r"neuron must be an instance; got the class: pass LIF\(\)"),
        (lambda: Layer(5, 20.0), "neuron must have init, step; got float 20.0"),
        (lambda: Layer(5, RELAY, synapse=5.0), "synapse must have init, step; got float 5.0"),
        (lambda: Layer(5, RELAY, rule=ThreeFactor), "rule must be an instance; got the class"),
        (lambda: Projection("a", "b", Dense), "connectivity must be an instance; got the class"),
        (
            lambda: Projection("a", 1, Dense(1, 1)),
            "post must be the name of .*; got 1",
        ),
        (lambda: Network({"a": RELAY}, {}), "layer 'a' must be a Layer; got LIF"),
        (
            lambda: two(x=one_to_one("input", "a", 0)).init_weights(0),
            r"key must be a JAX key; got 0: pass jax.random.key\(0\)",
        ),
        (
            lambda: two(x=one_to_one("input", "a", 0)).init_weights(KEY, ideal),
            r"make_weights must make Weights; got the function ideal: pass ideal\(\)",
        ),
        (
            lambda: two(x=one_to_one("input", "a", 0)).init_weights(KEY, lambda w, *_: w),
            "make_weights must make Weights, .* for projection 'x'",
        ),
    ],
)
def test_refuses_what_is_of_another_kind(make, message):
    with pytest.raises(TypeError, match=message):
        make()


TAUGHT = Layer(5, RELAY, rule=ThreeFactor())


def shown(net=None, *, given=None, n_steps=T, **options):
    """One run of a net whose layer `a` hears `input`; what is refused is so before it compiles."""
    net = two(x=one_to_one("input", "a", 0)) if net is None else net
    options = {"weights": net.init_weights(KEY), "state": net.init(), "dt": 1.0} | options
    inputs = {"input": jnp.ones(5)} if given is None else given
    return simulate(net, inputs=inputs, n_steps=n_steps, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dt": 0.0}, ValueError, "dt must be finite and > 0 ms; got 0.0"),
        ({"dt": -1}, ValueError, "dt must be finite and > 0 ms; got -1"),
        ({"dt": jnp.ones(3)}, ValueError, r"dt must be one number.*\(3,\): jax.vmap over dt"),
        ({"dt": (1.0, 2.0)}, ValueError, r"dt must be one number.*\(2,\): jax.vmap over dt"),
        ({"n_steps": 10.0}, ValueError, "n_steps must be a whole number >= 1; got 10.0"),
        ({"n_steps": 0}, ValueError, "n_steps must be a whole number >= 1; got 0"),
        ({"every": 5}, ValueError, f"n_steps must be a multiple of every, 5; got {T}"),
        ({"key": 3}, TypeError, r"key must be a JAX key; got 3: pass jax.random.key\(3\)"),
        (
            {"learn": True},
            ValueError,
            "learn must be False, as no plastic projection has a rule",
        ),
        (
            {"net": Network({"a": TAUGHT}, {"x": one_to_one("input", "a", 0)}), "learn": True},
            ValueError,
            "learn must be False, as ThreeFactor, the rule of projection 'x', cannot run with the",
        ),
        (
            {"net": Network({"a": TAUGHT}, {"x": one_to_one("input", "a", 0)})},
            ValueError,
            "learn must be said, as layer 'a' has a rule: pass learn=True .* learn=False to run it",
        ),
        (
            {"weights": {"x": jnp.ones((5, 5))}},
            TypeError,
            r"weights of projection 'x' must have apply; got an array of shape \(5, 5\): hold",
        ),
        (
            {"weights": {}},
            ValueError,
            "weights must have projection 'x'; .*: pass net.init_w",
        ),
        (
            {"state": None},
            TypeError,
            "state must be a State; got NoneType None: pass net",
        ),
        (
            {"state": Network({"c": Layer(5, RELAY)}, {}).init()},
            ValueError,
            r"state must be of layers \['a', 'b'\]; got \['c'\]",
        ),
        ({"probe": 5}, TypeError, "probe must map records to arrays; got 5"),
        ({"given": jnp.ones(5)}, TypeError, "inputs must be a dict by name; got an array of shape"),
        (
            {"given": {"inputs": jnp.ones(5)}},
            ValueError,
            r"projection 'x' reads 'input', which is neither a layer, \['a', 'b'\], nor a given"
            r" input, \['inputs'\]: did you mean 'inputs'\?",
        ),
        (
            {"given": {"input": jnp.ones(5), "other": jnp.ones(5)}},
            ValueError,
            r"input 'other' is read by no projection; inputs are \['input'\]",
        ),
        (
            {"net": two(x=one_to_one("hiden", "a", 0)), "given": {"hidden": jnp.ones(5)}},
            ValueError,
            "'x' reads 'hiden', which is neither a layer.*: did you mean 'hidden'?",
        ),
        (
            {"given": {"input": jnp.full(5, jnp.nan)}},
            ValueError,
            "input 'input' must be finite; got NaN or infinity",
        ),
        (
            {"given": {"input": "spikes"}},
            TypeError,
            "input 'input' must be real numbers; got 'spikes'",
        ),
        *(
            ({"given": {"input": jnp.ones(shape)}}, ValueError, rf"must have shape \[5\].*{cure}")
            for shape, cure in {
                (4,): r"got \(4,\)$",
                (5, 1): r"got \(5, 1\): pass x.reshape\(-1\)",
                (2, T, 5): r"got \(2, 24, 5\): jax.vmap over the batch",
                (7, 5): "pass n_steps=7 if rows are steps, jax.vmap over the batch if samples",
                (T, 5, 1): r"pass x.reshape\(len\(x\), -1\)$",
                (3, 5, 1): r"pass x.reshape\(len\(x\), -1\), and jax.vmap over the batch",
            }.items()
        ),
    ],
)
def test_refuses_what_cannot_be_run(options, error, message):
    with pytest.raises(error, match=message):
        shown(**options)


class Odd(NamedTuple):
    v: jax.Array


class Answers(eqx.Module):
    """A neuron whose `step` returns what it is told to."""

    step_to: Any = eqx.field(static=True)

    def init(self, shape, dtype=float):
        return Odd(jnp.zeros(shape, dtype))

    def step(self, state, current, *, dt):
        return self.step_to(state, current)


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (
            lambda s, i: i,
            TypeError,
            r"'h', a Answers, must return \(state, z\); got an array",
        ),
        (
            lambda s, i: Odd(i),
            TypeError,
            r"'h', a Answers, must return \(state, z\); got Odd",
        ),
        (
            lambda s, i: (s, i[:, None]),
            ValueError,
            r"z of layer 'h' must have shape \[5\]",
        ),
        (lambda s, i: (Odd(i[:2]), i), TypeError, r"float32\[5\].*got .*float32\[2\]"),
        (lambda s, i: (Odd(i.astype("bfloat16")), i), TypeError, "got .*bfloat16.*one dtype"),
    ],
)
def test_refuses_a_neuron_that_answers_otherwise(answer, error, message):
    net = Network({"h": Layer(5, Answers(answer))}, {})
    with pytest.raises(error, match=message):
        net.step({}, net.init(), {}, dt=1.0)


@pytest.mark.parametrize(
    ("shape", "cure"),
    [((5, 1), r": pass x.reshape\(-1\)"), ((2, 5), ": jax.vmap over the batch"), ((), "")],
)
def test_refuses_a_current_that_is_not_one_number_a_neuron(shape, cure):
    net = Network({"h": Layer(5, RELAY)}, {})
    with pytest.raises(ValueError, match=rf"current into layer 'h' must have shape \[5\].*{cure}"):
        net.step({}, net.init(), {"h": jnp.ones(shape)}, dt=1.0)


@pytest.mark.parametrize("dtype", [bool, np.uint8, int, float])
def test_spikes_of_any_type_are_read_and_spikes_as_bools_are_sent(dtype):
    class Threshold(eqx.Module):
        def init(self, shape, dtype=float):
            return jnp.zeros(shape, dtype)

        def step(self, state, current, *, dt):
            return current, current > 0.5

    links = {"x": one_to_one("input", "a", 0), "ab": one_to_one("a", "b", 0)}
    net = Network({"a": Layer(5, Threshold()), "b": Layer(5, RELAY)}, links)
    x = np.random.default_rng(0).random((T, 5)) < 0.4
    z = shown(net, given={"input": x.astype(dtype)})[1]["b"]
    assert z.dtype == jnp.float32
    np.testing.assert_array_equal(z, x)


def ladder():
    """a -> loop of b and c -> d, d late to e, all heard by f: four groups to run in turn."""
    sizes = {"f": 3, "e": 4, "d": 5, "c": 6, "b": 7, "a": 8}
    layers = {n: Layer(k, LIF(tau_mem=5.0, r_mem=12.0)) for n, k in sizes.items()}
    layers["f"] = Layer(3, LeakyIntegrator(5.0))
    links = [("x", "a", 0), ("a", "b", 0), ("b", "c", 0), ("c", "b", 1), ("c", "d", 0)]
    links += [("d", "e", 2), *((n, "f", 0) for n in "abcde")]
    sizes["x"] = 9
    return Network(
        layers,
        {
            f"{pre}{post}": Projection(pre, post, Dense(sizes[pre], sizes[post]), delay, gain=2.0)
            for pre, post, delay in links
        },
    )


def test_groups_are_loops_and_what_delays_link_after_all_that_they_hear(monkeypatch):
    assert len(ladder().groups()) == 1  # so small that one pass over time serves all
    monkeypatch.setattr("neurojax.network._WORTH_A_PASS", 1)
    assert ladder().groups() == (("a",), ("b", "c"), ("d", "e"), ("f",))
    monkeypatch.setattr("neurojax.network._WORTH_A_PASS", 6 * 5)  # c to d, and larger
    assert ladder().groups() == (("a",), ("b", "c"), ("d", "e", "f"))


def test_a_smaller_projection_is_worth_a_pass_where_a_gradient_is_wanted():
    def groups(spike):
        layers = {"a": Layer(80, LIF(spike=spike)), "b": Layer(60, LIF())}
        return Network(layers, {"ab": Projection("a", "b", Dense(80, 60))}).groups()

    assert groups(surrogate.heaviside) == (("a", "b"),)
    assert groups(surrogate.fast_sigmoid()) == (("a",), ("b",))


class Noisily(Ideal):
    """Weights that read with some noise each time."""

    def apply(self, s, *, key=None):
        noise = jax.random.normal(key, (self.connectivity.n_post,), s.dtype)
        return super().apply(s, key=key) + 0.1 * noise


def test_layer_by_layer_is_step_by_step(monkeypatch):
    """The same spikes, noise of the weights included, from rest and from the midst of a run."""
    net = ladder()
    weights = quick(lambda: net.init_weights(KEY, lambda w, c, key: Noisily(w, c)))()
    x = (jax.random.uniform(KEY, (2 * T, 9)) < 0.5).astype(float)
    options = dict(n_steps=T, dt=1.0, probe=spikes, key=KEY)

    monkeypatch.setattr("neurojax.network._WORTH_A_PASS", 1)

    def run(longest):
        monkeypatch.setattr("neurojax.simulation._BLOCK", longest)
        part = quick(lambda state, x: simulate(net, weights, state, {"x": x}, **options))
        early, heard = part(net.init(), x[:T])
        late, then = part(early, x[T:])
        return (early, late), (heard, then)

    (states_a, a), (states_b, b) = run(1000), run(1)
    assert min(jnp.abs(z).mean() for z in jax.tree.leaves(a)) > 0.02
    chex.assert_trees_all_close(a, b, atol=1e-5)
    chex.assert_trees_all_close(states_a, states_b, atol=1e-4)
    assert jax.tree.structure(states_a) == jax.tree.structure(states_b)


def test_long_runs_hold_no_spikes_between_layers(monkeypatch):
    monkeypatch.setattr("neurojax.network._WORTH_A_PASS", 1)
    net = ladder()
    weights = jax.eval_shape(lambda: net.init_weights(KEY))

    def memory(steps):
        def last(weights, x):
            options = dict(n_steps=steps, dt=1.0, probe=lambda records: None)
            return simulate(net, weights, net.init(), {"x": x}, **options)[0]

        return quick(last).lower(weights, jnp.zeros(9)).compile().memory_analysis()

    assert memory(1000).temp_size_in_bytes == memory(5000).temp_size_in_bytes


def test_events_are_not_worth_a_pass(monkeypatch):
    """One product over time gains nothing where spikes are visited one by one."""
    monkeypatch.setattr("neurojax.network._WORTH_A_PASS", 1)
    listed = by_sender(jnp.array([0, 1, 2]), jnp.array([0, 1, 0]), 3, 2, native=False)
    layers = {"a": Layer(3, LIF()), "b": Layer(2, LIF())}
    wide = Network(layers, {"ab": Projection("a", "b", Dense(3, 2))})
    assert wide.groups() == (("a",), ("b",))
    assert Network(layers, {"ab": Projection("a", "b", listed)}).groups() == (("a", "b"),)


def test_networks_of_nothing_and_neurons_without_floats_run():
    class Counter:
        """Counts its arrivals."""

        def init(self, shape, dtype=float):
            return jnp.zeros(shape, jnp.int32)

        def step(self, state, current, *, dt):
            return state + 1, current

    options = dict(n_steps=3, dt=1.0, probe=spikes)
    empty = Network({}, {})
    assert simulate(empty, {}, empty.init(), {}, **options)[1] == {}
    net = Network({"c": Layer(2, Counter())}, {})
    state, z = simulate(net, {}, net.init(), {}, **options)
    np.testing.assert_array_equal(state.neurons["c"], [3, 3])
    np.testing.assert_array_equal(z["c"], np.zeros((3, 2)))


@pytest.mark.parametrize("identity", [once, batch_last])
def test_what_is_computed_once_is_itself_and_so_are_its_derivatives(identity):
    x, direction = jnp.arange(12.0).reshape(2, 2, 3), jnp.linspace(-1, 1, 12).reshape(2, 2, 3)
    batches = jax.vmap(jax.vmap(identity))
    for run in (batches, jax.jit(batches)):
        value, forward = jax.jvp(run, (x,), (direction,))
        backward = jax.vjp(run, x)[1](direction)[0]
        for found, expected in ((value, x), (forward, direction), (backward, direction)):
            np.testing.assert_array_equal(found, expected)


def test_a_recurrent_product_reads_its_matrix_as_it_lies():
    n, batch = 48, 3
    net = Network({"h": Layer(n, LIF())}, {"loop": Projection("h", "h", Dense(n, n), delay=1)})
    weights = net.init_weights(KEY)

    def all_spikes(state):
        return simulate(net, weights, state, {}, n_steps=T, dt=1.0, probe=spikes)[1]

    states = jax.tree.map(lambda x: jnp.stack([x] * batch), net.init())
    program = quick(jax.vmap(all_spikes)).lower(states).compile().as_text()
    assert re.findall(r"f32\[([\d,]+)\]\S* dot\(", program) == [f"{n},{batch}"]


def test_a_state_of_other_parameters_is_refused_where_it_lacks_a_part():
    """A time constant that rounding is felt in, a refractory time: set after `init`."""
    quick = Network({"a": Layer(3, LIF(20.0))}, {})
    slow = eqx.tree_at(lambda n: n.layers["a"].neuron.tau_mem, quick, jnp.asarray(1000.0))
    told = r"state.neurons\['a'\] must keep what float32 leaves out, as tau_mem of LIF asks for it"
    with pytest.raises(ValueError, match=told):
        simulate(slow, {}, quick.init(), {}, n_steps=1, dt=0.01)
    with pytest.raises(ValueError, match=told):
        slow.step({}, quick.init(), {}, dt=0.01)
    far = eqx.tree_at(lambda n: n.layers["a"].neuron.v_rest, quick, jnp.asarray(-65.0))
    with pytest.raises(ValueError, match="as v_rest of LIF asks"):
        far.step({}, quick.init(), {}, dt=0.01)
    held = Network({"a": Layer(3, LIF(20.0, t_ref=2.0))}, {})
    with pytest.raises(ValueError, match="state must have refractory, as t_ref of LIF is given"):
        held.step({}, quick.init(), {}, dt=0.01)
    assert slow.step({}, slow.init(), {}, dt=0.01)[0].neurons["a"].v_low is not None


def long_synapse(net):
    return net.layers["a"].synapse.tau_syn


def long_port(net):
    return net.layers["a"].ports["e"].kinetics.tau_syn


def long_trace(net):
    return net.projections["p"].rule.tau_plus


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (long_synapse, r"state.synapses\['a'\] .* as tau_syn of Exponential asks for it; got None"),
        (long_port, r"state.ports\['a'\]\['e'\] .* as tau_syn of Exponential asks for it"),
        (long_trace, r"state.rules\['p'\] .* as tau_plus of STDP asks for it"),
    ],
)
def test_a_state_of_shorter_currents_or_traces_is_refused(where, told):
    layer = Layer(
        3, LIF(), synapse=Exponential(5.0), ports={"e": Conductance(Exponential(3.0), 0.0)}
    )
    wire = Projection("a", "a", Dense(3, 3), delay=1, rule=STDP())
    net = Network({"a": layer}, {"p": wire})
    weights, state = net.init_weights(KEY), net.init(learn=True)
    with pytest.raises(ValueError, match=told):
        eqx.tree_at(where, net, jnp.asarray(1000.0)).step(weights, state, {}, dt=1.0, learn=True)


def whole(n, **more):
    """A population with one of all that has a state."""
    layer = Layer(n, LIF(), synapse=Exponential(5.0), ports={"e": Exponential(3.0)})
    release = TsodyksMarkram(U=0.5, tau_rec=100.0, tau_fac=0.0)
    wire = {"release": release, "delay": 3, "rule": STDP(), **more}
    return Network({"a": layer}, {"p": Projection("a", "a", Dense(n, n), **wire)})


@pytest.mark.parametrize("part", State._fields)
def test_a_state_of_another_network_is_refused_by_the_part_that_does_not_fit(part):
    net = whole(3)
    state, other = net.init(learn=True), whole(4).init(learn=True)
    run = lambda **changed: simulate(  # noqa: E731
        net, net.init_weights(KEY), state._replace(**changed), {}, n_steps=1, dt=1.0, learn=True
    )
    told = (
        r"must have shape \((2, )?[36],?\); got \((2, )?[48],?\): pass net.init\(\) of this network"
    )
    with pytest.raises(ValueError, match=rf"state.{part}\['[ap]'\]\S* {told}"):
        run(**{part: getattr(other, part)})
    if part not in ("neurons", "rules"):  # without rules, they begin anew
        with pytest.raises(ValueError, match=rf"state.{part} must be of .*; got .*: pass net.init"):
            run(**{part: {}})


def test_a_state_of_other_kinds_or_of_a_batch_is_refused_and_one_with_more_is_not():
    net, cut = whole(3), whole(3).without("p")
    run = lambda net, state: simulate(  # noqa: E731
        net, net.init_weights(KEY), state, {}, n_steps=1, dt=1.0, learn=False
    )
    run(cut, net.init(learn=True))
    adapts = Network({"a": Layer(3, ALIF())}, {})
    with pytest.raises(ValueError, match=r"state.neurons\['a'\] must be ALIFState; got LIFState"):
        run(adapts, cut.init())
    batch = jax.tree.map(lambda x: jnp.stack([x, x]), net.init())
    with pytest.raises(ValueError, match=r"v must have .*\(2, 3\): jax.vmap over the batch"):
        run(net, batch)
    with pytest.raises(ValueError, match="'p' must be of Dense 3 x 3, weights .*; got Dense 4 x 4"):
        simulate(net, whole(4).init_weights(KEY), net.init(), {}, n_steps=1, dt=1.0, learn=False)
