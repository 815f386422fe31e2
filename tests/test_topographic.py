"""The topographic network: who hears whom on the grids, the bound on fan-in, equal to a mask."""

from dataclasses import replace
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import hardware
import neurojax as nj
from neurojax.structured import Recurrence
from neurojax.topographic import _density
from neurojax.wiring.layouts import Dense, FanIn

KEY = jax.random.key(0)
SHEETS = [
    nj.Sheet(2, window=3, stride=2, far=3, near=3, near_far=2),
    nj.Sheet(3, window=3, far=2),
    nj.Sheet(7, window=0, far=5),
]


@cache
def net():
    rule = nj.ThreeFactor(window=nj.triangle(0.5))
    neuron = nj.LIF(9.5, 12.0)
    return nj.topographic(
        KEY, (1, 10, 8), SHEETS, 3, neuron=neuron, rule=rule, population=2, max_fan_in=32
    )


def linked(p):
    """Which pairs are connected, [post, pre]."""
    return np.asarray(p.connectivity.matrix(jnp.ones(p.connectivity.shape))) > 0


@pytest.mark.slow
def test_names_sizes_and_delays():
    ends = {n: (p.pre, p.post, p.delay, p.plastic) for n, p in net().projections.items()}
    assert ends == {
        "input->h1": ("input", "h1", 0, True),
        "input->h1 far": ("input", "h1", 0, True),
        "h1->h1": ("h1", "h1", 1, True),
        "h1->h1 far": ("h1", "h1", 1, True),
        "h1->h2": ("h1", "h2", 0, True),
        "h1->h2 far": ("h1", "h2", 0, True),
        "h2->h3": ("h2", "h3", 0, True),
        "h1->readout": ("h1", "readout", 0, True),
        "h2->readout": ("h2", "readout", 0, True),
        "h3->readout": ("h3", "readout", 0, True),
    }
    assert {n: x.n for n, x in net().layers.items()} == {
        "h1": 2 * 5 * 4, "h2": 3 * 5 * 4, "h3": 7, "readout": 3
    }  # fmt: skip


def places(features, ny, nx):
    """Row and column of each neuron of a layer, [n, 2]."""
    y, x = np.divmod(np.arange(ny * nx), nx)
    return np.tile(np.stack([y, x], 1), (features, 1))


def test_each_projection_is_drawn_by_itself():
    """Of those of one shape no two are alike, forward, within a layer and onto the readout."""
    sheets = [nj.Sheet(36, window=0, far=5, near_far=5)] * 2
    made = nj.topographic(KEY, (1, 6, 6), sheets, 2, density=0.25).projections
    drawn = {n: linked(p).astype(int) for n, p in made.items()}
    assert [x.shape for x in drawn.values()].count((36, 36)) == 4
    drawn |= {n: np.asarray(made[n].connectivity.count) for n in drawn if n.endswith("readout")}
    names = sorted(drawn)
    for i, a in enumerate(names):
        for b in names[:i]:
            assert not np.array_equal(drawn[a], drawn[b]), (a, b)


@pytest.mark.parametrize("sizes", [(40, 60, 7), (100, 1, 1, 1), (33,), (8, 8, 8)])
def test_where_no_density_is_given_the_readout_hears_what_the_bound_allows(sizes):
    """From one neuron of each layer on, never more, and short of it by one a layer at most."""
    for most in range(len(sizes), sum(sizes) + 2):
        part = _density(None, list(sizes), most)
        heard = sum(max(1, round(part * n)) for n in sizes)
        assert heard <= most
        assert heard >= min(most, sum(sizes)) - len(sizes), most


@pytest.mark.parametrize(
    ("near", "far", "pre", "post", "half", "stride"),
    [
        ("input->h1", "input->h1 far", (1, 10, 8), (2, 5, 4), 1, 2),
        ("h1->h1", "h1->h1 far", (2, 5, 4), (2, 5, 4), 1, 1),
        ("h1->h2", "h1->h2 far", (2, 5, 4), (3, 5, 4), 1, 1),
    ],
)
def test_near_is_all_within_the_window_and_far_is_outside(near, far, pre, post, half, stride):
    """On two axes, forward and within a layer."""
    gap = np.abs(stride * places(*post)[:, None] - places(*pre)[None])
    inside = (gap <= half).all(-1)
    np.testing.assert_array_equal(linked(net().projections[near]), inside)
    away = linked(net().projections[far])
    assert not (away & inside).any()
    np.testing.assert_array_equal(away.sum(1), net().projections[far].connectivity.shape[1])


def test_the_bound_holds_on_the_edges():
    fan = {name: np.zeros(layer.n) for name, layer in net().layers.items()}
    for p in net().projections.values():
        fan[p.post] += np.asarray(p.connectivity.fan_in)
    fan["readout"] /= 2  # copies that are merged: each hears its part
    assert max(x.max() for x in fan.values()) == 32
    assert 29 < fan["readout"].max() <= 32  # as much as the bound allows


@pytest.mark.slow
def test_long_range_takes_all_that_windows_leave_out_alike():
    """Each sender outside is as likely; at the most there are, all of them."""
    near = nj.Local2D((2, 4, 3), 2, kernel=3, padding="same")
    outside = ~(near.matrix(jnp.ones(near.shape)) > 0)
    fewest = int(outside.sum(1).min())

    def one(key):
        fan = nj.long_range(key, near, fewest - 1)
        return fan.matrix(jnp.ones(fan.shape))

    times = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(KEY, 40)).sum(0))
    assert not times[~outside].any()
    p = (fewest - 1) / outside.sum(1, keepdims=True)
    # 40 draws, 4.5 standard errors of each, where there is a choice
    bound = 4.5 * np.sqrt(40 * p * (1 - p)) + 1e-3
    assert (np.abs(times - 40 * p)[outside] <= np.broadcast_to(bound, outside.shape)[outside]).all()
    tight = outside.sum(1) == fewest
    whole = linked(nj.Projection("a", "b", nj.long_range(KEY, near, fewest)))
    np.testing.assert_array_equal(whole[tight], outside[tight])


def seen(n, window, stride):
    """The most places of n that a window of odd width sees along one axis, by going through all."""
    half = window // 2
    return max(
        sum(0 <= y + d < n for d in range(-half, half + 1)) for y in range(0, n, stride)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("side", "sheet", "widths"),
    [
        (9, nj.Sheet(3, 3, 2, near=3), (9 + 3 * 9, 3 * 9)),
        (4, nj.Sheet(2, 5, 1), (16, 2 * 9)),  # of which all 4 x 4 pixels are seen from the middle
        (8, nj.Sheet(1, 1, 3, far=4), (1 + 4, 9)),
        (5, nj.Sheet(4, window=0, far=7, near=3), (7 + 4, 4)),
    ],
)
def test_no_neuron_hears_more_than_the_bound(side, sheet, widths):
    """As many as the widest neuron has, counted by hand, are allowed, and not one less."""
    sheets = [sheet, nj.Sheet(1, 3)]

    def made(most):  # neither drawn nor compiled
        jax.eval_shape(
            lambda key: nj.topographic(key, (1, side, side), sheets, 2, max_fan_in=most).init(), KEY
        )

    made(max(widths))
    name = f"h{1 + int(np.argmax(widths))}"
    with pytest.raises(ValueError, match=f"{name!r}.* max_fan_in; got {max(widths)}"):
        made(max(widths) - 1)


@pytest.mark.slow
def test_the_error_goes_back_along_the_readouts_own_synapses():
    """The learning signal is W^T e; a layer that the readout does not hear keeps its feedback."""
    whole = net()
    system = nj.wta_broadcast.system(KEY, whole.without("h1->readout"), n_steps=8, start=2)
    weights = {
        n: replace(w, w=w.w + 0.3 * jax.random.normal(nj.fold(KEY, n), w.w.shape))
        if n.endswith("readout")
        else w
        for n, w in whole.without("h1->readout").init_weights(KEY).items()
    }
    x, y = 2 * jax.random.uniform(KEY, (3, 80)), jnp.array([0, 1, 2])
    told = dict(system.feedback)
    for n in ("h2", "h3"):
        own = weights[f"{n}->readout"]
        back = own.connectivity.matrix(own.w).T  # [n, classes]
        told[n] = nj.Broadcast(back, jnp.eye(3))
    by_hand = eqx.tree_at(lambda s: s.feedback, system, told)
    expected, _ = nj.wta_broadcast.deltas(by_hand, weights, system.rest(), x, y)
    got, _ = nj.wta_broadcast.symmetric(system, weights, system.rest(), x, y)
    for n, dw in expected.items():
        assert np.abs(dw).max() > 0
        np.testing.assert_allclose(got[n], dw, atol=1e-5 * np.abs(dw).max(), err_msg=n)


@pytest.mark.parametrize("by", ["local rule", pytest.param("gradient", marks=pytest.mark.slow)])
def test_it_computes_what_a_dense_network_with_a_mask_computes(by):
    """Spikes, and the changes that are asked for."""
    from neurojax.learning import bptt

    masked, weights = {}, net().init_weights(KEY)
    for name, p in net().projections.items():
        c = p.connectivity
        if isinstance(c, Dense):
            masked[name] = p
            continue
        w = c.matrix(weights[name].w)
        pairs = Dense(c.n_pre, c.n_post, jnp.asarray(linked(p)))
        masked[name] = replace(p, connectivity=pairs, w=w)
    dense = nj.Network(net().layers, masked)
    x = 2 * jax.random.uniform(KEY, (3, 80))
    y = jnp.array([0, 1, 2])
    out = []
    for each, w in ((net(), weights), (dense, dense.init_weights(KEY))):
        system = nj.wta_broadcast.system(KEY, each, n_steps=8, start=2)
        changes = nj.wta_broadcast.deltas
        if by == "gradient":
            changes = jax.jit(bptt.learner(system, optax.sgd(1.0)).changes)
        dw, seen = changes(system, w, system.rest(), x, y)
        full = lambda d, each=each: {  # noqa: E731
            n: each.projections[n].connectivity.matrix(v) for n, v in d.items()
        }
        out.append((full(dw), seen.rates))
    (dw, rates), (dw_2, rates_2) = out
    assert min(float(r.mean()) for r in rates.values()) > 0.01
    for name in rates:
        np.testing.assert_array_equal(rates[name], rates_2[name])
    for name in dw:
        size = np.abs(dw_2[name]).max()
        np.testing.assert_allclose(dw[name], dw_2[name], atol=2e-5 * size, err_msg=name)


def tied(c, w):
    """Weights [n_post, window] of windows with their own, alike at all places."""
    return jnp.repeat(w.reshape(c.features, -1), c.n_post // c.features, axis=0)


def test_shared_windows_are_windows_whose_weights_are_alike_everywhere():
    """Spikes are those of the sheet with weights of its own, set alike; a shared weight is asked
    to change by the sum over its places; what is far is drawn and learnt as there."""
    sheets = [nj.Sheet(2, window=3, stride=2, far=3), nj.Sheet(3, window=3, far=2, near=3)]
    neuron, rule = nj.LIF(9.5, 12.0), nj.ThreeFactor(window=nj.triangle(0.5))
    alike, own = (
        nj.topographic(
            KEY, (1, 8, 6), [replace(s, shared=shared) for s in sheets], 3, neuron=neuron,
            rule=rule, population=2, max_fan_in=48,
        )
        for shared in (True, False)
    )  # fmt: skip
    assert [n for n, p in alike.projections.items() if isinstance(p.connectivity, nj.Conv2D)] == [
        "input->h1", "h1->h2"
    ]  # fmt: skip
    weights = alike.init_weights(KEY)
    wide = {
        n: replace(w, w=weights[n].w.reshape(w.w.shape) if w.w.size == weights[n].w.size
                   else tied(w.connectivity, weights[n].w))
        for n, w in own.init_weights(KEY).items()
    }  # fmt: skip
    x, y = 2 * jax.random.uniform(KEY, (3, 48)), jnp.array([0, 1, 2])
    out = []
    for net, w in ((alike, weights), (own, wide)):
        system = nj.wta_broadcast.system(KEY, net, n_steps=8, start=2)
        out.append(nj.wta_broadcast.deltas(system, w, system.rest(), x, y))
    (dw, seen), (each, seen_2) = out
    for name, rate in seen.rates.items():
        assert rate.mean() > 0.01
        np.testing.assert_array_equal(rate, seen_2.rates[name])
    for name, d in dw.items():
        total = each[name]
        if total.shape != d.shape:
            total = total.reshape(len(d), -1, total.shape[-1]).sum(1).reshape(d.shape)
        size = np.abs(total).max()
        assert size > 0
        np.testing.assert_allclose(d, total, atol=2e-5 * size, err_msg=name)


def test_windows_to_share_count_to_the_bound_and_need_a_window():
    sheet = nj.Sheet(3, 3, 2, near=3, shared=True)
    with pytest.raises(ValueError, match="'h1'.* max_fan_in; got 36"):
        nj.topographic(KEY, (1, 9, 9), [sheet], 2, max_fan_in=35)
    for window in (0, None):
        with pytest.raises(ValueError, match=f"shared needs a window.*got window={window}"):
            nj.Sheet(3, window, far=0 if window is None else 2, shared=True)
    with pytest.raises(TypeError, match="shared must be True or False"):
        nj.Sheet(3, shared=1)


@pytest.mark.slow
def test_near_and_far_together_are_as_strong_as_asked():
    """Variance of the current for independent inputs: gain squared, away from the edge."""
    sheets = [nj.Sheet(30, window=3, far=6, near=3, near_far=30)]
    made = nj.topographic(KEY, (1, 5, 5), sheets, 2, gain_in=3.0, gain_recurrent=0.7)
    middle = slice(12, None, 25)  # of 5 x 5 places, all 30 maps
    for names, gain in ((("input->h1",), 3.0), (("h1->h1",), 0.7)):
        power = 0.0
        for name in names:
            for part in (name, f"{name} far"):
                p = made.projections[part]
                full = np.asarray(p.connectivity.matrix(p.initial(nj.fold(KEY, part))))
                power = power + np.square(full[middle]).sum(1)
        # 30 neurons of 15 synapses or more each: 4 standard errors
        np.testing.assert_allclose(power.mean(), gain**2, rtol=4 * np.sqrt(2 / (30 * 15)))


@pytest.mark.slow
def test_devices_and_the_mesh_take_it():
    """Weights on devices have the shapes of the wiring; its edges lie on a mesh."""
    device = hardware.crossbar(
        hardware.Device(hardware.linear(64)), hardware.OneSide(hardware.Train(64)), 1.0
    )
    held = jax.eval_shape(lambda key: {
        n: w.w for n, w in net().init_weights(key, device).items()
    }, KEY)  # fmt: skip
    assert {n: w.shape for n, w in held.items()} == {
        n: p.connectivity.shape for n, p in net().projections.items()
    }
    edges, n = hardware.topology.wiring(net())
    mesh = hardware.topology.Mesh(4, 4, 8)
    hops = hardware.topology.mean_hops(edges, hardware.topology.bisected(edges, n, mesh), mesh)
    assert 0 < hops < 4


@pytest.mark.slow
def test_it_learns_on_devices_within_its_bound():
    """Two kinds of pictures: told apart after 60 batches, by pulses where there are synapses."""
    make = hardware.crossbar(
        hardware.Device(hardware.linear(64)), hardware.OneSide(hardware.Train(64)), 1.0
    )
    sheets = [nj.Sheet(2, window=3, stride=2, far=2, near=3), nj.Sheet(12, window=0, far=10)]
    built = nj.topographic(
        KEY, (1, 6, 6), sheets, 2, neuron=nj.LIF(9.5, 3.0), population=2, max_fan_in=32,
        rule=nj.ThreeFactor(window=nj.triangle(0.5)),
    )  # fmt: skip
    system = nj.wta_broadcast.system(KEY, built, n_steps=10, start=3)
    learner = nj.learning.WTABroadcast(system, optax.adam(0.02))
    begun = state = learner.init(KEY, make)
    kinds = jax.random.uniform(nj.fold(KEY, "kinds"), (2, 36))

    def batch(i):
        y = jax.random.bernoulli(jax.random.fold_in(KEY, i), shape=(32,)).astype(int)
        noise = jax.random.uniform(jax.random.fold_in(KEY, i + 1000), (32, 36))
        return 0.6 * kinds[y] + 0.4 * noise, y

    step = jax.jit(lambda s, x, y: learner.step(s, x, y, key=KEY)[0])
    for i in range(60):
        state = step(state, *batch(i))
    x, y = batch(999)
    right = lambda s: float((learner.predict(s, x).argmax(1) == y).mean())  # noqa: E731
    assert right(state) > max(0.9, right(begun))
    fan = {name: np.zeros(layer.n) for name, layer in built.layers.items()}
    for name, held in state.weights.items():
        wired = linked(built.projections[name])
        pulses = np.asarray(held.n_pulses - begun.weights[name].n_pulses)
        assert pulses.sum() > 0, name
        received = held.connectivity.matrix(jnp.asarray(pulses, float))
        assert not np.asarray(received)[~wired].any(), name
        fan[built.projections[name].post] += np.asarray(held.connectivity.fan_in)
        assert float(held.pair.spent.energy) > float(begun.weights[name].pair.spent.energy)
    fan["readout"] /= 2  # copies that are merged
    assert max(n.max() for n in fan.values()) <= 32


# --- recurrence on a torus ---


def test_a_grid_hears_its_nearest_on_two_axes_at_each_delay():
    loop = Recurrence("grid", fan_in=12, p_rewire=0.0, delays=(1, 3), gain=0.5)
    made = loop.projections(None, "h", 48)  # 6 x 8
    assert {n: p.delay for n, p in made.items()} == {"h->h": 1, "h->h after 3": 3}
    pairs = sum(linked(p).astype(int) for p in made.values())
    at = places(1, 6, 8)
    gap = np.abs(at[:, None] - at[None])
    gap = np.minimum(gap, np.array([6, 8]) - gap)
    squared = (gap**2).sum(-1)
    np.testing.assert_array_equal(pairs, ((squared > 0) & (squared <= 4)).astype(int))
    power = [np.square(p.gain) for p in made.values()]
    assert sum(power) == pytest.approx(0.25)


def test_a_rewired_grid_keeps_its_fan_in_and_has_no_pair_twice():
    made = Recurrence("grid", fan_in=8, p_rewire=0.5, delays=(1, 2, 4)).projections(KEY, "h", 40)
    pairs = sum(linked(p).astype(int) for p in made.values())
    assert pairs.max() == 1
    np.testing.assert_array_equal(pairs.sum(1), 8)
    assert not pairs.diagonal().any()
    still = Recurrence("grid", fan_in=8, p_rewire=0.0).projections(None, "h", 40)["h->h"]
    # A half is drawn anew, 4 of 35 of these near all the same; 320 synapses, 4 standard errors
    far = (pairs.astype(bool) & ~linked(still)).sum() / 320
    assert abs(far - 0.5 * 31 / 35) < 4 * 0.5 / 320**0.5
    assert [p.connectivity.shape[1] for p in made.values()] == [3, 3, 2]
    assert all(isinstance(p.connectivity, FanIn) and p.plastic for p in made.values())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nj.Sheet(8, window=4), "window must be odd, so that it has a middle, or 0; got 4"),
        (lambda: nj.Sheet(8, window=0), "far must be >= 1 without a window; got 0"),
        (lambda: nj.Sheet(8, window=None, far=3), "far must be 0 where all is heard, window None"),
        (lambda: nj.topographic(KEY, (1, 8, 8), [nj.Sheet(4, 5)], 2, max_fan_in=24),
         "layer 'h1' must have a fan-in of at most 24, max_fan_in; got 25: pass a smaller window"),
        (lambda: nj.topographic(KEY, (1, 8, 8), [nj.Sheet(4, 5)], 2, max_fan_in=64, density=0.5),
         "layer 'readout' must have a fan-in of at most 64, max_fan_in; got 128: pass density="),
        (lambda: nj.topographic(KEY, (1, 8, 8), [nj.Sheet(4, window=0, far=65)], 2),
         "far must be at most 64, all below; got 65"),
        (lambda: nj.topographic(KEY, (1, 8, 8), [nj.Sheet(4, 5, far=48)], 2),
         r"fan_in must be in \[1, 39\], the senders outside a window; got 48"),
        (lambda: nj.topographic(KEY, (1, 8, 8), [], 2), "sheets must be a list of one Sheet"),
        (lambda: nj.topographic(KEY, (1, 8, 8), [nj.Sheet(4)], 2, rule=[nj.ThreeFactor()] * 2),
         "rule must be one, or one a sheet, 1; got 2"),
        (lambda: Recurrence("grid", fan_in=9).projections(KEY, "h", 40),
         "recurrence of layer 'h', 5 x 8 neurons: fan_in must take in all that are equally far"),
        (lambda: Recurrence("grid", fan_in=4, delays=(1, 1)), "delays must be one or more diff"),
    ],
)  # fmt: skip
def test_refusals(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_bound_on_fan_in_counts_the_rivals_of_a_spiking_readout():
    sheets = [nj.Sheet(4, window=3, stride=2), nj.Sheet(64, window=0, far=32)]
    made = lambda most: nj.topographic(  # noqa: E731
        jax.random.key(0), (1, 8, 8), sheets, 10, max_fan_in=most, readout=nj.LIF()
    )
    heard = [p.connectivity for p in made(128).projections.values() if p.post == "readout"]
    assert 100 < sum(int(c.fan_in.max()) for c in heard) <= 128
    with pytest.raises(ValueError, match="at most 64, max_fan_in; got 90 from neurons of other"):
        made(64)
