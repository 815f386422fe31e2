"""When what arrives where, and what it costs to watch it."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from neurojax import surrogate
from neurojax._once import batch_last, once
from neurojax.connectivity import fan_in, locally_dense
from neurojax.layouts import Dense
from neurojax.network import Layer, Network, Projection, simulate
from neurojax.neurons import ALIF, LIF, LeakyIntegrator
from neurojax.sparse import by_sender
from neurojax.synapses import Exponential
from neurojax.weights import Ideal

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

    (few_temp, few_out), (many_temp, many_out) = memory(50), memory(5000)
    assert many_temp == few_temp
    kept = 0 if asked == "nothing" else 4 * n * (5000 - 50)
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

        leaves = jax.tree.leaves(jax.eval_shape(everything))
        assert {x.dtype for x in leaves} == {jnp.dtype(dtype), jnp.dtype("int32")}


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


def shown(inputs, n_steps=T):
    net = two(x=one_to_one("input", "a", 0))
    weights = net.init_weights(KEY)
    simulate(net, weights, net.init(), inputs, n_steps=n_steps, dt=1.0, probe=lambda r: None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: two(ab=one_to_one("a", "b", 0), ba=one_to_one("b", "a", 0)),
            r"projections without delay form a loop: \['.', '.', '.'\]",
        ),
        (lambda: two(aa=one_to_one("a", "a", 0)), "projections without delay form a loop"),
        (lambda: two(ac=one_to_one("a", "c", 0)), "projection 'ac' ends at 'c', which is no layer"),
        (
            lambda: two(ab=one_to_one("a", "b", -1)),
            "delay of projection 'ab' must be >= 0; got -1",
        ),
        (
            lambda: two(x=one_to_one("input", "b", 2)),
            "delay of projection 'x' must be 0, as input 'input' is no layer; got 2",
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
            lambda: Projection("a", "b", Dense(5, 5), w=jnp.ones((5, 4))),
            r"w must have shape \(5, 5\); got \(5, 4\)",
        ),
        (lambda: Layer(5, RELAY, winners=6), r"winners must be in \[1, 5\], the layer; got 6"),
        (lambda: Layer(5, RELAY, winners=0), r"winners must be in \[1, 5\], the layer; got 0"),
        (
            lambda: shown({"inputs": jnp.ones(5)}),
            r"projection 'x' needs input 'input'; got \['inputs'\]",
        ),
        (
            lambda: shown({"input": jnp.ones(4)}),
            r"input 'input' must have shape \[5\] or \[T, 5\]; got \(4,\)",
        ),
        (
            lambda: shown({"input": jnp.ones((2, T, 5))}),
            r"input 'input' must have shape \[5\] or \[T, 5\]; got \(2, 24, 5\)",
        ),
        (
            lambda: shown({"input": jnp.ones((T, 5))}, n_steps=T - 1),
            f"input 'input' has {T} steps; n_steps is {T - 1}",
        ),
    ],
)
def test_refuses_networks_and_inputs_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


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


@pytest.mark.parametrize("cut", [0, T])
def test_layer_by_layer_is_step_by_step(monkeypatch, cut):
    """The same spikes, noise of the weights included, from rest or from the midst of a run."""
    net = ladder()

    class Noisy(Ideal):
        def apply(self, s, *, key=None):
            noise = jax.random.normal(key, (self.connectivity.n_post,), s.dtype)
            return super().apply(s, key=key) + 0.1 * noise

    weights = net.init_weights(KEY, lambda w, c, key: Noisy(w, c))
    x = (jax.random.uniform(KEY, (2 * T, 9)) < 0.5).astype(float)
    options = dict(n_steps=2 * T, dt=1.0, probe=spikes, key=KEY)

    monkeypatch.setattr("neurojax.network._WORTH_A_PASS", 1)

    def run(longest):
        monkeypatch.setattr("neurojax.network._LAYERWISE", longest)

        @quick
        def both(state):
            if cut:
                early = options | {"n_steps": cut}
                state = simulate(net, weights, state, {"x": x[:cut]}, **early)[0]
            return simulate(net, weights, state, {"x": x}, **options)

        return both(net.init())

    (last_a, a), (last_b, b) = run(1000), run(0)
    assert min(jnp.abs(z).mean() for z in a.values()) > 0.02
    chex.assert_trees_all_close(a, b, atol=1e-5)
    chex.assert_trees_all_close(last_a, last_b, atol=1e-4)
    assert jax.tree.structure(last_a) == jax.tree.structure(last_b)


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
