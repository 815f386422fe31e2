"""One network on many devices is the network on one; what goes between them is what theory says."""

import math
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import neurojax as nj
from neurojax import _transmission, checkpoint, sharding
from neurojax.learning import fitting
from neurojax.wiring import shards

N, T = 64, 24


def network(delay, learn, n=N):
    """Leaky neurons on an event list, plastic if they learn, beside noise that is one to one.

    One receiver in four hears most of the list, so that the lists of devices differ in length.
    """
    rng = np.random.default_rng(0)
    pre, post = rng.integers(0, n, 20 * n), rng.integers(0, n, 20 * n)
    post = np.where(rng.random(20 * n) < 0.5, post // 4, post)
    wiring, w = nj.by_sender(pre, post, n, n, jnp.asarray(rng.normal(0.6, 0.8, 20 * n)))
    wiring = wiring.with_columns() if learn else wiring
    rule = {"rule": nj.STDP(0.01, 0.012)} if learn else {}
    cells = nj.Layer(n, nj.LIF(tau_mem=jnp.linspace(10.0, 20.0, n)), nj.Exponential(5.0))
    noise = nj.Projection("noise", "cells", nj.one_to_one(n), w=jnp.full((n, 1), 8.0))
    loop = nj.Projection("cells", "cells", wiring, w=w, delay=delay, **rule)
    return nj.Network(
        {"cells": cells, "noise": nj.Layer(n, nj.Poisson(50.0))}, {"loop": loop, "noise": noise}
    )


def same(a, b):
    """Bit for bit, whatever devices hold it."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    return all(np.array_equal(np.asarray(x), np.asarray(y)) for x, y in pairs)


# --- the same numbers ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("delay", "learn"),
    [(4, True)]
    + [pytest.param(*row, marks=pytest.mark.slow) for row in [(1, False), (1, True), (5, False)]],
)
def test_what_eight_devices_began_two_and_one_end_bit_for_bit(delay, learn, tmp_path):
    net, key = network(delay, learn), jax.random.key(1)
    weights = net.init_weights(jax.random.key(0), nj.ideal(bounds=(-9.0, 9.0), keep_sign=True))

    def half(net, weights, state, part):
        given = {"n_steps": T, "dt": 1.0, "key": jax.random.fold_in(key, part), "learn": learn}
        *w, state, z = nj.simulate(net, weights, state, {}, **given)
        return w[0] if learn else weights, state, np.asarray(z["cells"])

    def on(n, weights, state, part):
        placed = sharding.place(sharding.mesh(neuron=n), net, weights, state)
        assert placed[0].projections["loop"].connectivity.shape[0] == n
        weights, state, z = half(*placed, part)
        return *sharding.collect(net, weights, state), z

    alone = half(net, weights, net.init(learn=learn), 0)
    began = on(8, weights, net.init(learn=learn), 0)
    assert alone[2].any()
    assert same(began, alone)
    checkpoint.save(tmp_path, 1, began[:2], {})
    _, (weights, state), _ = checkpoint.restore(tmp_path, (weights, net.init(learn=learn)))
    ends = [half(net, weights, state, 1), on(2, weights, state, 1)]
    assert ends[0][2].any()
    assert same(ends[1], ends[0])


def rich():
    """All that goes another way: graded output, counts, releases, delays a synapse, no delay."""
    n, key = 16, jax.random.key(3)
    wiring = nj.fan_in(key, n, n, 0.3)
    edges = wiring.edges()
    listed = nj.by_sender(edges.pre, edges.post, n, n)
    size = listed.shape[0]
    lif = lambda: nj.Layer(n, nj.LIF(), nj.Exponential(5.0))  # noqa: E731
    layers = {"a": lif(), "b": lif(), "in": nj.Layer(n, nj.PoissonInput(100, 20.0))}
    layers["out"] = nj.Layer(n, nj.LeakyIntegrator())
    ms = 1 + np.arange(size) % 4
    wires = {
        "in": nj.Projection("in", "a", nj.one_to_one(n), w=jnp.full((n, 1), 2.0)),
        "x": nj.Projection("x", "a", nj.Dense(5, n), gain=3.0),
        "late": nj.Projection("a", "a", listed, delays=nj.Delays(ms), w=jnp.full(size, 2.0)),
        "release": nj.Projection(
            "a", "a", listed, delay=2, w=jnp.full(size, 3.0), release=nj.TsodyksMarkram()
        ),
        "ahead": nj.Projection("a", "b", listed, w=jnp.full(size, 5.0)),
        "rows": nj.Projection("b", "b", wiring, delay=1, gain=4.0),
        "all": nj.Projection("b", "out", nj.Dense(n, n), gain=4.0),
        "graded": nj.Projection("out", "a", nj.Dense(n, n), delay=2),
    }
    return nj.Network(layers, wires)


@pytest.mark.slow
def test_every_kind_of_wire_gives_the_same_numbers():
    net = rich()
    weights = net.init_weights(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (T, 5))
    run = lambda *net: nj.simulate(  # noqa: E731
        *net, {"x": x}, n_steps=T, dt=1.0, key=jax.random.key(2),
        probe=lambda r: (r["a"].z, r["b"].z, r["out"].z),
    )  # fmt: skip
    there = sharding.place(sharding.mesh(neuron=2), net, weights, net.init())
    (state, alone), (placed, seen) = run(net, weights, net.init()), run(*there)
    placed = sharding.collect(net, there[1], placed)[1]
    for one, other in zip(alone[:2], seen[:2], strict=True):
        assert one.any()
        np.testing.assert_array_equal(one, other)
    # Sums of a matrix product are ordered by how many rows there are: an ulp each.
    for one, other in zip(*map(jax.tree.leaves, ((alone, state), (seen, placed))), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-6, atol=1e-6)


LISTS, ROWS = (
    nj.by_sender(*np.random.default_rng(1).integers(0, 16, (2, 90)), 24, 16),
    nj.Dense(24, 16),
)
slowly = [pytest.param(x, marks=pytest.mark.slow) for x in (ROWS, nj.one_to_one(16))]


@pytest.mark.slow
@pytest.mark.parametrize("wiring", [LISTS, *slowly], ids=repr)
def test_products_of_what_is_divided_are_those_of_the_whole(wiring):
    rng = np.random.default_rng(1)
    e, s = jnp.asarray(rng.random(16)), jnp.asarray(rng.random(wiring.n_pre) < 0.5, float)
    w = jnp.asarray(rng.random(wiring.shape))

    @jax.jit
    def products(c, w, e, s):
        at = [jnp.broadcast_to(x, w.shape) for x in (c.at_pre(s), c.at_post(e))]
        by_w = jax.grad(lambda w: (c.apply(w, s) * e).sum())(w)
        ends = c.apply(w, s), c.apply_t(w, e), c.fan_in, c.fan_out
        return ends, (c.outer(e[None], s[None]), by_w, *at)

    parts = shards.divided(wiring, sharding.mesh(neuron=4), spikes=False, inside=True)
    assert parts.local == (wiring.shape == (16, 1))
    there = shards.spread(w, wiring, parts)
    np.testing.assert_array_equal(parts.matrix(there), wiring.matrix(w))
    for one, other in zip(nj.metrics.degrees(parts), nj.metrics.degrees(wiring), strict=True):
        np.testing.assert_array_equal(one, other)
    ours, theirs = products(parts, there, e, s), products(wiring, w, e, s)
    for one, other in zip(ours[0], theirs[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)  # sums of devices are added up: ulps
    for one, other in zip([there, *ours[1]], [w, *theirs[1]], strict=True):
        np.testing.assert_allclose(shards.whole(one, wiring), other, rtol=1e-6)


# --- what is divided, and how ---


def counted(rng):
    return nj.Dense(24, 16, rng.integers(0, 3, (16, 24)))


@pytest.mark.parametrize("kind", ["list", "rows", "counted", "one to one"])
def test_what_is_divided_are_the_same_synapses(kind):
    rng = np.random.default_rng(2)
    wiring = {
        "list": LISTS, "rows": nj.fan_in(jax.random.key(0), 24, 16, 0.3), "counted": counted(rng),
        "one to one": nj.one_to_one(16),
    }[kind]  # fmt: skip
    w = jnp.asarray(rng.random(wiring.shape))
    parts = shards.divided(wiring, sharding.mesh(neuron=4), spikes=False, inside=True)
    there = shards.spread(w, wiring, parts)
    assert len(there.sharding.device_set) == 4
    np.testing.assert_array_equal(shards.whole(there, wiring), w)
    np.testing.assert_array_equal(parts.matrix(there), wiring.matrix(w))


def test_places_that_fill_up_a_list_have_receivers_of_their_own_where_receivers_are_gone_through():
    wiring = LISTS.with_columns()
    parts = shards.divided(wiring, sharding.mesh(neuron=4), spikes=False, inside=True).parts
    pre, post, _ = jax.vmap(lambda c: c.edges())(parts)
    silent, filled = pre >= 24, post >= 4
    assert silent.any()
    np.testing.assert_array_equal(silent, filled)


@pytest.mark.parametrize("devices", [2, 8])
def test_synapses_that_are_computed_are_the_same_on_each_device(devices):
    wiring = nj.procedural(jax.random.key(0), N, N, 0.2, spread=0.3)
    cells = nj.Layer(N, nj.LIF(v_rest=1.5), nj.Exponential(5.0))
    loop = nj.Projection("cells", "cells", wiring, w=jnp.full(N, 0.3), delay=3, plastic=False)
    net = nj.Network({"cells": cells}, {"loop": loop})
    given = net, net.init_weights(jax.random.key(1)), net.init()
    alone = nj.simulate(*given, {}, n_steps=40, dt=1.0)
    mesh = sharding.mesh(neuron=devices)
    end, z = nj.simulate(*sharding.place(mesh, *given), {}, n_steps=40, dt=1.0)
    assert same(z, alone[1])
    assert z["cells"].sum() > 50
    assert len(end.neurons["cells"].v.sharding.device_set) == devices
    assert same(sharding.collect(*given[:2], end)[1], alone[0])


def test_lists_of_devices_are_kept_alike_where_only_one_needs_the_more():
    """Of one sender among 70,000 a device hears 300, more than a byte counts, another one."""
    n = 70_000
    wiring = nj.by_sender(np.zeros(301, int), np.append(np.arange(300), n - 1), n, n).with_columns()
    parts = shards.divided(wiring, sharding.mesh(neuron=2), spikes=False, inside=True)
    assert parts.columns.pre.dtype == np.uint32
    visit = nj.Visit(jnp.ones(n), jnp.arange(1.0, n + 1))
    w = shards.spread(jnp.zeros(301), wiring, parts)
    visited = jax.jit(lambda w: parts.visited(w, (None, visit), None, None))
    np.testing.assert_array_equal(
        shards.whole(visited(w), wiring),  # compiled: op by op, jaxlib 0.11.2 ends here
        wiring.visited(jnp.zeros(301), (None, visit), None, None),
    )


def test_a_bound_of_a_sender_is_that_of_silent_ones_too():
    bound = jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(shards._bound(bound, 5, 3), [1, 2, 3, 0, 0])
    np.testing.assert_array_equal(shards._bound(bound[None], 5, 3), bound)
    assert shards._bound(None, 5, 3) is None
    assert shards._bound(bound[0], 5, 3) == 1


@pytest.mark.parametrize(
    ("neuron", "more", "bits"),
    [
        (nj.LIF(), {}, True), (nj.Poisson(5.0), {}, True), (nj.PoissonInput(9, 5.0), {}, False),
        (nj.LeakyIntegrator(), {}, False), (nj.LIF(), {"release": nj.TsodyksMarkram()}, False),
    ],
)  # fmt: skip
def test_bits_are_sent_of_what_is_0_or_1_alone(neuron, more, bits):
    wire = nj.Projection("a", "b", nj.Dense(2, 2), delay=1, **more)
    assert sharding._in_bits(nj.Layer(2, neuron), wire) == bits


def test_steps_are_gathered_together_up_to_the_smallest_delay():
    wires = {str(d): nj.Projection("a", "a", nj.Dense(2, 2), delay=d) for d in (7, 3, 5)}
    net = nj.Network({"a": nj.Layer(2, nj.LIF())}, wires)
    weights = net.init_weights(jax.random.key(0))
    placed, _, _ = sharding.place(sharding.mesh(neuron=2), net, weights, net.init())
    assert _transmission.stride(placed) == 3
    assert _transmission.stride(net) == 1


def test_what_is_under_way_is_gathered_in_the_order_in_which_it_arrives():
    net = nj.Network(
        {"a": nj.Layer(8, nj.LIF())}, {"w": nj.Projection("a", "a", nj.Dense(8, 8), delay=4)}
    )
    z = jnp.asarray(np.random.default_rng(0).random((4, 8)) < 0.5, float)
    state, first = net.init(), net.init_weights(jax.random.key(0))
    under_way = {"ring": jnp.roll(z[:3], 1, 0), "head": jnp.ones((), jnp.int32), "due": z[0]}
    line = state.delays["w"]._replace(**under_way)
    state = state._replace(delays={"w": line}, sent={"a": z[3]})
    placed, _, there = sharding.place(sharding.mesh(neuron=2), net, first, state)
    words = _transmission.gathered(placed, there, 4)["w"]
    arrived = [shards._to_spikes(word, 4, 8, z.dtype) for word in words]
    np.testing.assert_array_equal(arrived, z)
    for t in range(4):  # as on one device, step by step
        np.testing.assert_array_equal(_transmission.due(net.projections["w"], "w", state), z[t])
        late = _transmission._later(net.projections["w"], state.sent["a"], state.delays["w"])[1]
        state = state._replace(delays={"w": late}, sent={"a": 0 * z[3]})


def test_derivatives_pass_through_what_is_gathered():
    mesh, c = sharding.mesh(neuron=2), jnp.arange(1.0, 13.0)
    by_z = jax.grad(lambda z: (shards._everywhere(mesh, 12, z) * c).sum())(jnp.ones(10))
    np.testing.assert_array_equal(by_z, c[:10])


def test_each_device_rounds_by_chances_of_its_own():
    """The same synapses on both, changed by a tenth of what bfloat16 resolves there."""
    n = 512
    ring = nj.by_sender(np.arange(2 * n) % n, np.arange(2 * n), 2 * n, 2 * n)
    parts = shards.divided(ring.with_columns(), sharding.mesh(neuron=2), spikes=False, inside=True)
    w = shards.spread(jnp.ones(2 * n, jnp.bfloat16), ring, parts)
    visit = nj.Visit(jnp.ones(2 * n), jnp.full(2 * n, 2.0**-7 / 4), scale=jnp.ones_like)
    new = np.asarray(parts.visited(w, (visit, None), None, None, key=jax.random.key(0)), float)
    up = new > 1
    assert abs(up.mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / (2 * n))
    both = (up[0] & up[1]).mean()
    assert abs(both - 0.25**2) < 5 * math.sqrt(0.25**2 / n)


# --- what goes between devices ---


def collectives(net, weights, state):
    """Kind and bytes of each message of the compiled program, beside how often it is sent."""
    run = lambda weights, state: nj.simulate(  # noqa: E731
        net, weights, state, {}, n_steps=T, dt=1.0, key=jax.random.key(0)
    )
    return messages(jax.jit(run).lower(weights, state).compile())


def messages(compiled):
    text = compiled.as_text()
    sent = r"= (\w\d+)\[([\d,]*)\]\S* (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\("
    width = {"u32": 4, "f32": 4, "s32": 4, "pred": 1}
    return [
        (kind, width[dtype] * math.prod(int(x) for x in shape.split(",") if x))
        for dtype, shape, kind in re.findall(sent, text)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("delay", "devices"), [(3, 2), pytest.param(1, 8, marks=pytest.mark.slow)])
def test_spikes_are_gathered_once_a_smallest_delay_a_bit_a_neuron(delay, devices):
    """The only message: delay x N bits, all devices' together, in whole words of each."""
    net, n = network(delay, False, 32 * 8), 32 * 8
    placed = sharding.place(
        sharding.mesh(neuron=devices), net, net.init_weights(jax.random.key(0)), net.init()
    )
    assert collectives(*placed) == [("all-gather", delay * n // 8)]


def test_lists_filled_up_to_other_lengths_hear_one_sender_and_one_message():
    """The lists of one have more silent senders than those of the other, rows have none."""
    rng, wires = np.random.default_rng(0), {}
    for name, skewed in (("much", 200), ("little", 40)):
        pre, post = rng.integers(0, N, (2, 400))
        post = np.where(np.arange(400) < skewed, post // 4, post)
        wires[name] = nj.by_sender(pre, post, N, N)
    wires["rows"] = nj.fan_in(jax.random.key(1), N, N, 0.2)
    projections = {
        name: nj.Projection("cells", "cells", wiring, delay=1, gain=2.0)
        for name, wiring in wires.items()
    }
    net = nj.Network({"cells": nj.Layer(N, nj.LIF(v_rest=jnp.linspace(0.0, 40.0, N)))}, projections)
    weights = net.init_weights(jax.random.key(0))
    placed = sharding.place(sharding.mesh(neuron=2), net, weights, net.init())
    senders = [p.connectivity.parts.n_pre for p in placed[0].projections.values()]
    assert senders[0] > senders[1] > senders[2] == N
    run = lambda net: jax.jit(  # noqa: E731
        lambda *given: nj.simulate(net, *given, {}, n_steps=4, dt=1.0)[1]["cells"]
    )
    divided = run(placed[0]).lower(*placed[1:]).compile()
    alone = run(net)(weights, net.init())
    assert alone[0].any()
    np.testing.assert_array_equal(divided(*placed[1:]), alone)
    assert messages(divided) == [("all-gather", N // 8)]


@pytest.mark.parametrize("kernel", [True, False])
def test_bits_come_back_as_the_spikes_that_they_were(kernel, monkeypatch):
    kernel = kernel and shards._compiled()
    monkeypatch.setattr(shards, "_compiled", lambda: kernel)
    mesh, n = sharding.mesh(neuron=2), 200
    z = jnp.asarray(np.random.default_rng(n).random((3, n)) < 0.3, float).at[0].set(-0.0)

    @jax.jit
    def back(z):
        words = shards.packed(mesh, z)
        assert words.shape == (3, 2, 4)  # 100 neurons of a device are 4 words
        return [shards.unpacked(mesh, word, n // 2, n + 5, z.dtype) for word in words]

    for row, seen in zip(z, back(z), strict=True):
        np.testing.assert_array_equal(seen, np.r_[row, np.zeros(5)])


# --- training ---


def lesson():
    x = jax.random.uniform(jax.random.key(0), (52, 6))
    return x, jnp.asarray(np.arange(52) % 3)


def learners():
    """One of each kind that goes through a batch in its own way."""
    tx, learn = optax.sgd(0.1), nj.learning
    yield lambda: learn.Perceptron((6, 8, 3), learn.DFA(), tx)
    yield broadcasting
    yield lambda: learn.EProp((6, 8, 3), tx)
    yield lambda: learn.Equilibrium((6, 8, 3), tx)
    yield lambda: learn.ForwardForward((6, 8, 3), tx)
    yield lambda: learn.Decolle((6, 8, 3), tx)
    yield lambda: learn.SoftHebb((6, 8, 3), tx)
    yield lambda: learn.CounterCurrent((6, 8, 8, 3), tx)
    yield lambda: learn.DifferenceTarget((6, 8, 3), tx)
    yield lambda: learn.ZerothOrder((6, 8, 3), learn.Neurons(), tx)


def broadcasting():
    layer = nj.Layer(8, nj.LIF(), rule=nj.ThreeFactor())
    net = nj.structured(jax.random.key(0), 6, [layer], 3, population=1)
    return nj.learning.WTABroadcast(nj.wta_broadcast.system(jax.random.key(1), net), optax.sgd(0.1))


SLOWLY = [pytest.param(x, marks=[pytest.mark.slow] * (i > 0)) for i, x in enumerate(learners())]


@pytest.mark.slow
@pytest.mark.parametrize("make", SLOWLY)
def test_a_batch_over_devices_teaches_what_it_teaches_on_one(make, tmp_path):
    """Up to the order in which a batch is added up; a checkpoint of two goes on over four."""
    learner, data = make(), lesson()
    fit = lambda epochs, **more: nj.fit(  # noqa: E731
        learner, data, key=jax.random.key(2), epochs=epochs, batch_size=8, progress=False,
        val=data, **more,
    )  # fmt: skip
    alone = fit(2)
    fit(1, mesh=sharding.mesh(data=2), folder=tmp_path)
    spread = fit(2, mesh=sharding.mesh(data=4), folder=tmp_path)
    for one, other in zip(*map(jax.tree.leaves, (alone.state, spread.state)), strict=True):
        if eqx.is_inexact_array(one):
            # 12 batches, each of which may round a sum of 8 in another order: two ulp of 1 each.
            np.testing.assert_allclose(one, np.asarray(other), rtol=1e-5, atol=12 * 2.4e-7)
            assert np.isfinite(one).all()
            assert len(other.sharding.device_set) == 4
            assert other.is_fully_replicated
    np.testing.assert_array_equal(alone.history["val_accuracy"], spread.history["val_accuracy"])


def test_each_device_has_its_part_of_a_batch():
    learner, (x, y) = next(learners())(), lesson()
    mesh, key = sharding.mesh(data=4), jax.random.key(0)
    order = fitting.shuffled(key, 52, 8)
    run = lambda state: fitting.stretch(  # noqa: E731
        learner, state, x, y, order, key, jnp.array([0, 1]), mesh=mesh
    )
    text = jax.jit(run).lower(learner.init(key)).compile().as_text()
    assert "f32[2,8]" in text  # two samples of eight at the hidden layer
    assert "f32[2,6]" in text
    assert "f32[8,6]" not in text  # nor is any batch read as a whole
    assert not re.search(r"f32\[8,8\]\S* dot\(", text)
    assert "all-reduce" in text


# --- what is refused ---


def test_a_batch_that_the_mesh_does_not_divide_is_refused():
    said = 'batch_size must be a multiple of 8, the devices along "data"; got 12'
    with pytest.raises(ValueError, match=said):
        nj.fit(
            next(learners())(), lesson(), key=jax.random.key(0), epochs=1, batch_size=12,
            mesh=sharding.mesh(data=8),
        )  # fmt: skip


def test_a_mesh_of_devices_that_are_not_there_is_refused():
    assert sharding.mesh(2, 4).shape == {"data": 2, "neuron": 4}
    with pytest.raises(ValueError, match=r"at most 8, the cpu devices .*; got 9: set JAX_NUM_CPU"):
        sharding.mesh(data=3, neuron=3)
    with pytest.raises(ValueError, match="neuron must be a whole number >= 1; got 0"):
        sharding.mesh(neuron=0)


def test_what_cannot_be_divided_is_refused():
    net, mesh = network(1, False, n=12), sharding.mesh(neuron=8)
    weights, state = net.init_weights(jax.random.key(0)), net.init()
    said = "layer 'cells' must have a multiple of 8 neurons, .*; got 12: make it 16, or .* 1 or 2 "
    with pytest.raises(ValueError, match=said):
        sharding.place(mesh, net, weights, state)
    with pytest.raises(TypeError, match="mesh must be a Mesh with an axis"):
        sharding.place(jax.make_mesh((8,), ("data",)), net, weights, state)
    placed = sharding.place(sharding.mesh(neuron=4), net, weights, state)
    for wrong in (lambda: sharding.place(mesh, *placed), lambda: sharding.collect(*placed)):
        with pytest.raises(ValueError, match="net must not be placed; projection 'loop' has Sh"):
            wrong()
    with pytest.raises(ValueError, match="weights must be made before the network is placed"):
        eqx.tree_at(lambda n: n.projections["loop"].w, placed[0], None).init_weights(
            jax.random.key(0)
        )
