"""Shared weights in networks: what learns, what is counted, what is refused."""

import math
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hardware
import neurojax as nj
from neurojax.learning import bptt
from neurojax.weights import visited

KEY = jax.random.key(0)
SMALL = nj.Conv2D((2, 6, 5), 3, 3, padding=1, stride=(1, 2), pool=(2, 1))


def tied(c, dense):
    """What a dense change [n_post, n_pre] asks of each shared weight: sum over all its places."""
    basis = np.eye(math.prod(c.shape), dtype=np.float32).reshape(-1, *c.shape)
    places = jax.jit(jax.vmap(c.matrix))(basis)
    return np.einsum("kij,ij->k", places, dense).reshape(c.shape)


@cache
def nets() -> tuple[nj.Network, nj.Network]:
    """A net, and the same with a synapse for each pair, which start with equal weights."""
    neuron = nj.LIF(tau_mem=2.0, r_mem=2.5)
    net, own = nj.convolutional((1, 6, 6), (2, 3), 2, neuron=neuron), {}
    for name, p in net.projections.items():
        c = p.connectivity
        w, pairs = nj.normal(nj.fold(KEY, name), c, 4.0), c.matrix(jnp.ones(c.shape)) > 0
        own[name] = nj.Projection(p.pre, p.post, nj.Dense(c.n_pre, c.n_post, pairs), w=c.matrix(w))
        net.projections[name] = replace(p, w=w)
    return net, nj.Network(net.layers, own)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["local rule", pytest.param("gradient", marks=pytest.mark.slow)])
def test_a_shared_weight_changes_by_the_sum_over_its_places(by):
    """The same currents in another order of sums: spikes are equal, changes up to rounding."""
    x, y = jax.random.uniform(KEY, (3, 36)), jnp.array([0, 1, 0])
    found = []
    for net in nets():
        system = nj.wta_broadcast.system(KEY, net, n_steps=6, start=1)
        changes = nj.wta_broadcast.deltas
        if by == "gradient":
            changes = bptt.learner(system, optax.sgd(1.0)).changes
        found.append(changes(system, net.init_weights(KEY), system.rest(), x, y))
    (shared, out), (own, own_out) = found
    assert min(r.mean() for r in out.rates.values()) > 0.01
    for layer, rates in out.rates.items():
        np.testing.assert_allclose(rates, own_out.rates[layer], atol=1e-6)
    for name, dw in shared.items():
        asked = tied(nets()[0].projections[name].connectivity, own[name])
        assert np.abs(asked).max() > 1e-5
        np.testing.assert_allclose(dw, asked, atol=1e-5 * np.abs(asked).max(), rtol=1e-3)


def test_stdp_sums_over_the_places_of_a_weight():
    w = nj.normal(KEY, SMALL, 1.0)
    fired = jax.random.bernoulli(KEY, 0.3, (SMALL.n_pre + SMALL.n_post,)).astype(float)
    pre, post = fired[: SMALL.n_pre], fired[SMALL.n_pre :]
    x, y = jax.random.uniform(KEY, (SMALL.n_pre,)), jax.random.uniform(KEY, (SMALL.n_post,))
    visits = nj.Visit(pre, -0.1 * y), nj.Visit(post, 0.2 * x)
    got = visited(nj.Ideal(w, SMALL), visits).w - w
    dense = -0.1 * np.outer(y, pre) + 0.2 * np.outer(post, x)
    np.testing.assert_allclose(got, tied(SMALL, dense), atol=2e-5)


def test_weights_learn_by_stdp_while_the_network_runs():
    layers = {"h": nj.Layer(SMALL.n_post, nj.LIF(r_mem=10.0))}
    net = nj.Network(layers, {"in": nj.Projection("x", "h", SMALL, rule=nj.STDP())})
    weights = net.init_weights(KEY, nj.ideal(bounds=(-2.0, 2.0)))
    x = jax.random.bernoulli(KEY, 0.5, (20, SMALL.n_pre))
    after, *_ = nj.simulate(net, weights, net.init(), {"x": x}, n_steps=20, dt=1.0, learn=True)
    assert after["in"].w.shape == SMALL.shape
    assert np.abs(after["in"].w - weights["in"].w).max() > 0


@pytest.mark.parametrize(
    ("rule", "learn"), [(nj.DopamineSTDP(), True), (nj.STDP(), False)], ids=["trace", "delay"]
)
def test_what_is_kept_a_synapse_is_refused(rule, learn):
    layers = {"h": nj.Layer(SMALL.n_post, nj.LIF())}
    delays = None if learn else nj.Delays(jnp.ones(SMALL.shape, int))
    p = nj.Projection("x", "h", SMALL, rule=rule, delays=delays)
    net = nj.Network(layers, {"in": p})
    with pytest.raises(ValueError, match="Conv2D shares each weight .*: pass Local2D"):
        nj.simulate(
            net, net.init_weights(KEY), net.init(), {"x": jnp.ones(SMALL.n_pre)}, n_steps=2,
            dt=1.0, learn=learn, signals={"h": 1.0} if learn else None,
        )  # fmt: skip


@pytest.mark.slow
def test_chips_are_priced_as_if_each_place_had_a_synapse():
    """Events, hops and deliveries of shared weights are those of the unrolled network."""
    rates = {n: jnp.arange(x.n) % 4 for n, x in nets()[0].layers.items()}
    inputs = {"input": jnp.arange(36) % 5}
    mesh = hardware.Mesh(3, 3, 20)
    did = []
    for net in nets():
        placed = jnp.arange(sum(x.n for x in net.layers.values())) // 20
        did.append(
            hardware.energy.activity(
                net, rates, placed, mesh, dt=1.0, n_steps=8, inputs=inputs, n_changes=2
            )
        )
    assert did[0].synaptic_events > 1000
    for shared, own in zip(*did, strict=True):
        np.testing.assert_array_equal(shared, own)


def test_what_moves_in_the_picture_moves_in_the_maps():
    c = nj.Conv2D((1, 8, 8), 2, 3, padding=1)
    net = nj.Network(
        {"h": nj.Layer(c.n_post, nj.LIF(r_mem=20.0))}, {"a": nj.Projection("x", "h", c)}
    )
    weights = net.init_weights(KEY)
    picture = jnp.zeros((8, 8)).at[2:5, 2:5].set(jax.random.uniform(KEY, (3, 3), minval=1.0))
    run = jax.jit(
        lambda x: nj.simulate(net, weights, net.init(), {"x": x.reshape(-1)}, n_steps=15, dt=1.0)[1]
    )
    here, there = (
        run(x)["h"].reshape(15, 2, 8, 8) for x in (picture, jnp.roll(picture, (1, 2), (0, 1)))
    )
    assert here.sum() > 10
    np.testing.assert_array_equal(jnp.roll(here, (1, 2), (2, 3)), there)


def test_neurons_without_memory_are_a_max_pool_of_spikes():
    c = nj.Conv2D((3, 4, 6), 3, 2, stride=2, groups=3)
    net = nj.Network(
        {"pool": nj.Layer(c.n_post, nj.LIF(tau_mem=1e-3, v_th=0.5))},
        {"or": nj.Projection("z", "pool", c, plastic=False, w=jnp.ones(c.shape))},
    )
    z = jax.random.bernoulli(KEY, 0.2, (30, c.n_pre))
    weights = net.init_weights(KEY)
    seen = nj.simulate(net, weights, net.init(), {"z": z}, n_steps=30, dt=1.0)[1]["pool"]
    expected = np.asarray(z).reshape(30, 3, 2, 2, 3, 2).max((3, 5)).reshape(30, -1)
    np.testing.assert_array_equal(seen, expected)


def test_all_to_all_into_maps_and_out_of_them_is_a_product_with_flat_neurons():
    """Neurons without memory fire where their current is above .5: three loops over synapses."""
    relay, rng = nj.LIF(tau_mem=1e-3, v_th=0.5), np.random.default_rng(0)
    c = nj.Conv2D((2, 3, 4), 3, 2, stride=(1, 2))
    wiring = {"in": ("x", "maps", nj.Dense(5, 24)), "conv": ("maps", "more", c)}
    wiring["out"] = ("more", "out", nj.Dense(c.n_post, 4))
    w = {n: rng.integers(-2, 3, x.shape).astype(np.float32) for n, (*_, x) in wiring.items()}
    links = {n: nj.Projection(*x, w=jnp.asarray(w[n])) for n, x in wiring.items()}
    sizes = {"maps": 24, "more": c.n_post, "out": 4}
    net = nj.Network({n: nj.Layer(size, relay) for n, size in sizes.items()}, links)
    x = rng.integers(0, 2, (9, 5)).astype(np.float32)
    weights, probe = net.init_weights(KEY), lambda r: {n: r[n].z for n in r}
    seen = nj.simulate(net, weights, net.init(), {"x": x}, n_steps=9, dt=1.0, probe=probe)[1]
    maps = (x @ w["in"].T > 0.5).reshape(9, 2, 3, 4) * 1.0
    places = [maps[:, :, a : a + 2, b : 3 + b : 2] for a in range(2) for b in range(2)]
    more = np.zeros((9, 3, 2, 2))
    for (a, b), at in zip(np.ndindex(2, 2), places, strict=True):
        more += np.einsum("oc,tcyx->toyx", w["conv"][:, :, a, b], at)
    more = (more > 0.5).reshape(9, -1) * 1.0
    out = (more @ w["out"].T > 0.5) * 1.0
    for name, asked in {"maps": maps.reshape(9, -1), "more": more, "out": out}.items():
        assert 0.1 < asked.mean() < 0.9
        np.testing.assert_array_equal(seen[name], asked)


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((2, 6, 5), r"got \(2, 6, 5\): pass x.reshape\(-1\)$"),
        ((6, 5, 2), r", channels last: pass jnp.moveaxis\(x, -1, 0\).reshape\(-1\)$"),
        ((7, 6, 5, 2), r"channels last: pass jnp.moveaxis\(x, -1, 1\).reshape\(len\(x\), -1\)"),
        ((5, 6, 2), r"\(5, 6, 2\): maps of \(2, 6, 5\) are meant, flat, channels first$"),
        ((7, 2, 6, 5), r"pass x.reshape\(len\(x\), -1\), and jax.vmap over the batch if rows are"),
        ((3, 7, 60), r"got \(3, 7, 60\): jax.vmap over the batch$"),
    ],
)
def test_refuses_pictures_that_are_not_flat(shape, told):
    net = nj.Network(
        {"h": nj.Layer(SMALL.n_post, nj.LIF())}, {"in": nj.Projection("x", "h", SMALL)}
    )
    with pytest.raises(ValueError, match=told):
        net.drive(net.init_weights(KEY), {"x": jnp.ones(shape)})


def test_refuses_maps_in_another_order_of_axes():
    layers = {"h": nj.Layer(60, nj.LIF()), "o": nj.Layer(2, nj.LIF())}
    links = {"a": nj.Projection("x", "h", nj.Conv2D((1, 6, 5), 2, 1))}
    told = (
        r"projection 'b' has 'h' as maps of \(6, 5, 2\), 'a' as \(2, 6, 5\): pass both sizes chan"
    )
    with pytest.raises(ValueError, match=told):
        nj.Network(layers, links | {"b": nj.Projection("h", "o", nj.Conv2D((6, 5, 2), 2, (5, 2)))})
    column = nj.Conv2D((60, 1, 1), 2, 1)  # flat, as an all-to-all layer: no order of axes at all
    assert nj.Network(layers, links | {"b": nj.Projection("h", "o", column)})


def test_layers_of_the_net_fit_one_another():
    net = nj.convolutional((3, 32, 32), (4, 8, 8), 5, neuron=nj.LIF(), pool=2)
    shapes = {n: p.connectivity.shape for n, p in net.projections.items()}
    assert shapes == {
        "input->h1": (4, 3, 3, 3), "h1->h2": (8, 4, 3, 3), "h2->h3": (8, 8, 3, 3),
        "h3->readout": (5, 8, 4, 4),
    }  # fmt: skip
    assert [net.layers[n].n for n in ("h1", "h2", "h3", "readout")] == [4096, 2048, 512, 5]
    assert not net.init_weights(KEY)["h3->readout"].w.any()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(features=()), r"features must list one number of maps a layer or more; got \(\)"),
        (dict(features=np.eye(4)), r"one number of maps a layer or more; got float64 of shape"),
        (dict(kernel=2), 'padding="same" needs stride 1 and a kernel of odd reach'),
        (dict(pool=16), r"pool must fit the maps of the last layer, \(8, 8\); got 16"),
        (dict(n_classes=1), "n_classes must be a whole number >= 2; got 1"),
        (dict(size=(8, 8)), r"size must be \(channels, height, width\)"),
        (dict(gain_in=-1.0), "gain_in must be finite and >= 0 nA; got -1.0"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_a_net_that_cannot_be(given, message):
    usual = dict(size=(1, 8, 8), features=(2,), n_classes=2, neuron=nj.LIF())
    with pytest.raises(ValueError, match=message):
        nj.convolutional(**(usual | given))
