"""Energy: activity against loops over spikes and synapses, prices by hand, and refusals."""

import copy
import dataclasses
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from hardware import energy, routing, topology
from hardware.energy import Activity, Chip, Constant

MESH = topology.Mesh(3, 2, 2)
T, DT = 20, 0.5
DID = Activity(*(jnp.asarray(float(x)) for x in (1e6, 2e3, 3e4, 2e3, 5e3, 7e3, 9e3, 4e5, 100, 0.1)))


def network():
    index = jnp.array([[1, 2], [3, 0], [0, 1], [2, 1]])
    return nj.Network(
        layers={
            "hidden": nj.Layer(4, nj.LIF()),
            "first": nj.Layer(3, nj.LIF()),
            "out": nj.Layer(2, nj.LeakyIntegrator()),
        },
        projections={
            "in": nj.Projection("x", "first", nj.Dense(5, 3)),
            "up": nj.Projection("first", "hidden", nj.Dense(3, 4, jnp.arange(12).reshape(4, 3))),
            "loop": nj.Projection("hidden", "hidden", nj.FanIn(index, 4), delay=1),
            "read": nj.Projection("hidden", "out", nj.Dense(4, 2), plastic=False),
        },
    )


def rasters(key=0):
    names, sizes = ("hidden", "first"), (4, 3)
    keys = jax.random.split(jax.random.key(key), 2)
    return {
        name: jax.random.bernoulli(k, 0.3, (T, n)).astype(float)
        for name, k, n in zip(names, keys, sizes, strict=True)
    }


INPUTS = {"x": jax.random.bernoulli(jax.random.key(9), 0.2, (T, 5)).astype(float)}
PLACEMENT = topology.given([0, 0, 5, 4, 1, 2, 3, 3, 2], MESH)


def run(spikes, **changed):
    given = {"inputs": INPUTS, "dt": DT} | changed
    return energy.activity(network(), spikes, PLACEMENT, MESH, **given)


# --- counting ---


@pytest.mark.slow
def test_activity_is_that_of_a_loop_over_spikes_and_synapses():
    net, spikes = network(), rasters()
    got = run(spikes, n_changes=3)
    events = hops_ew = hops_ns = deliveries = 0
    start, core = topology.offsets(net), np.asarray(PLACEMENT)
    fired = {name: np.asarray(z).sum(0) for name, z in (spikes | INPUTS).items()}
    sends_to = {}
    for p in net.projections.values():
        for pre, post, number in zip(*map(np.asarray, p.connectivity.edges()), strict=True):
            events += fired[p.pre][pre] * int(number)
            if number and p.pre in net.layers:
                to = core[start[p.post] + int(post)]
                sends_to.setdefault((p.pre, int(pre)), set()).add(int(to))
    for (name, neuron), cores in sends_to.items():
        a, times = core[start[name] + neuron], fired[name][neuron]
        hops_ew += times * sum(abs(a % 3 - b % 3) for b in cores)
        hops_ns += times * sum(abs(a // 3 - b // 3) for b in cores)
        deliveries += times * len(cores)
    total = fired["hidden"].sum() + fired["first"].sum()
    assert got == Activity(
        events, total, 9 * T - total, total, hops_ew, hops_ns, deliveries,
        3 * (15 + 11 + 8), T, pytest.approx(T * DT * 1e-3),
    )  # fmt: skip


@pytest.mark.slow
def test_counts_say_the_same_as_rasters():
    spikes = rasters()
    counts = {name: z.sum(0) for name, z in spikes.items()}
    inputs = {"x": INPUTS["x"].sum(0)}
    assert run(counts, inputs=inputs, n_steps=T) == run(spikes)


def test_nothing_is_learnt_unless_weights_change():
    assert run(rasters()).learning_events == 0
    assert run(rasters(), n_changes=1 / 32).learning_events == (15 + 11 + 8) / 32


@pytest.mark.parametrize("kind", [bool, int])
def test_spikes_that_are_booleans_or_whole_numbers_count_as_floats_do(kind):
    spikes = rasters()
    cast = {name: z.astype(kind) for name, z in spikes.items()}
    assert run(cast, inputs={"x": INPUTS["x"].astype(kind)}) == run(spikes)


def test_steps_past_the_range_of_integers_are_counted():
    quiet = {"hidden": jnp.zeros(4), "first": jnp.ones(3)}
    long = run(quiet, inputs={"x": jnp.zeros(5)}, n_steps=10**9)
    np.testing.assert_allclose(long.updates_idle, 9e9, rtol=1e-6)
    np.testing.assert_allclose(long.time, 5e5, rtol=1e-6)  # s, of steps of half a ms


def test_a_layer_left_out_is_silent():
    net = network()
    counts = {"hidden": jnp.arange(4.0), "first": jnp.ones(3)}
    named = counts | {"out": jnp.zeros(2)}
    one, other = (
        energy.activity(net, z, PLACEMENT, MESH, inputs=INPUTS, dt=DT) for z in (counts, named)
    )
    assert one == other
    assert one.updates_idle == 9 * T - 9


def test_a_tree_takes_no_more_links_and_the_rest_is_the_same():
    one, tree = run(rasters()), run(rasters(), route=routing.multicast)
    assert 0 < tree.hops_ew + tree.hops_ns < one.hops_ew + one.hops_ns
    assert tree._replace(hops_ew=one.hops_ew, hops_ns=one.hops_ns) == one


@pytest.mark.slow
def test_a_batch_is_a_loop_and_prices_part_by_part():
    several = [rasters(key) for key in range(3)]
    batch = jax.tree.map(lambda *z: jnp.stack(z), *several)
    priced = eqx.filter_jit(jax.vmap(lambda z: energy.energy(run(z), energy.LOIHI)))(batch)
    for i, spikes in enumerate(several):
        alone = energy.energy(run(spikes), energy.LOIHI)
        for name in alone.covers:
            # the same numbers, in one order or another
            np.testing.assert_allclose(getattr(priced, name)[i], getattr(alone, name), rtol=1e-6)
    assert priced.total.shape == (3,)


def test_a_simulation_is_priced_from_what_it_records():
    net = network()
    weights = net.init_weights(jax.random.key(0))
    x = INPUTS["x"] * 50.0
    probe = lambda records: {n: records[n].z for n in ("hidden", "first")}  # noqa: E731
    _, spikes = nj.simulate(net, weights, net.init(), {"x": x}, n_steps=T, dt=DT, probe=probe)
    did = run(spikes)
    assert did.spikes == spikes["hidden"].sum() + spikes["first"].sum() > 0
    assert energy.energy(did, energy.LOIHI).total > 0


# --- pricing ---


def test_loihi_is_priced_part_by_part():
    got = energy.energy(DID, energy.LOIHI)
    expected = energy.Energy(
        synaptic=1e6 * 23.6e-12,
        neuron=2e3 * 81e-12 + 3e4 * 52e-12,
        routing=5e3 * 3e-12 + 7e3 * 4e-12,
        delivery=9e3 * 1.7e-12,
        learning=4e5 * 120e-12,
        static=None,
        lumped=None,
    )
    parts = ("synaptic", "neuron", "routing", "delivery", "learning")
    assert got.covers == parts
    for name in parts:
        np.testing.assert_allclose(getattr(got, name), getattr(expected, name), rtol=1e-6)
    assert (got.static, got.lumped) == (None, None)
    assert energy.LOIHI.missing == ("static",)
    np.testing.assert_allclose(got.total, sum(getattr(expected, n) for n in parts), rtol=1e-6)


@pytest.mark.parametrize(
    ("chip", "value", "missing"),
    [
        (energy.TRUENORTH, 2.3e-12, ("learning", "static")),
        (energy.TRUENORTH_AVERAGE, 26e-12, ("learning",)),
        (energy.ODIN, 12.7e-12, ("learning",)),
        (energy.RECKON, 5.3e-12, ("learning",)),
        (energy.TIANJIC, 1.54e-12, ("learning",)),
        (energy.SENECA, 2.8e-12, ("learning",)),
    ],
)
def test_an_event_with_all_in_it_is_not_called_synaptic(chip, value, missing):
    got = energy.energy(DID, chip)
    assert got.covers == ("lumped",)
    assert chip.missing == missing
    np.testing.assert_allclose(got.total, 1e6 * value, rtol=1e-6)


@pytest.mark.parametrize(
    ("chip", "event", "update"),
    [(energy.SPINNAKER, 13.3e-9, 26e-9), (energy.SPINNAKER2, 450e-12, 2.19e-9)],
)
def test_software_updates_every_neuron_at_every_tick(chip, event, update):
    got = energy.energy(DID, chip)
    assert got.covers == ("synaptic", "neuron")
    np.testing.assert_allclose(got.total, 1e6 * event + 3.2e4 * update, rtol=1e-6)
    assert {"hop_ew", "hop_ns", "tile", "learning", "static"} == set(chip.missing)


def test_links_alone_can_be_priced():
    got = energy.energy(DID, energy.TRUENORTH_HOPS)
    assert got.covers == ("routing",)
    np.testing.assert_allclose(got.total, 1.2e4 * 2.3e-12, rtol=1e-6)


def test_static_power_is_paid_by_time():
    static = Constant(0.02, "a measurement of one's own", unit="W")
    got = energy.energy(DID, dataclasses.replace(energy.LOIHI, static=static))
    np.testing.assert_allclose(got.static, 0.02 * 0.1, rtol=1e-6)
    assert got.covers[-1] == "static"


def test_nothing_is_covered_where_nothing_is_published():
    got = energy.energy(DID, Chip("unknown"))
    assert got.covers == ()
    assert got.total == 0


def test_constants_can_be_swept():
    values = jnp.array([1e-12, 2e-12])
    price = lambda v: energy.energy(DID, Chip("any", Constant(v, "a sweep"))).total  # noqa: E731
    np.testing.assert_allclose(jax.vmap(price)(values), values * 1e6, rtol=1e-6)


# J, scope, basis, V and nm of each constant, copied from the sources by hand.
_LOIHI = ("marginal", "simulated", 0.75, 14)
_SPINNAKER = ("marginal", "unstated", None, 130)
_SPINNAKER2 = ("marginal", "measured", None, 28)
PUBLISHED = {
    "Loihi": {
        "synaptic": (23.6e-12, *_LOIHI),
        "neuron_active": (81e-12, *_LOIHI),
        "neuron_idle": (52e-12, *_LOIHI),
        "hop_ew": (3e-12, *_LOIHI),
        "hop_ns": (4e-12, *_LOIHI),
        "tile": (1.7e-12, *_LOIHI),
        "learning": (120e-12, *_LOIHI),
    },
    "TrueNorth": {"synaptic": (2.3e-12, "active", "measured", 0.8, 28)},
    "TrueNorth, average": {"synaptic": (26e-12, "average", "measured", 0.775, 28)},
    "TrueNorth, links alone": {
        "hop_ew": (2.3e-12, "marginal", "measured", 0.775, 28),
        "hop_ns": (2.3e-12, "marginal", "measured", 0.775, 28),
    },
    "SpiNNaker": {
        "synaptic": (13.3e-9, *_SPINNAKER),
        "neuron_active": (26e-9, *_SPINNAKER),
        "neuron_idle": (26e-9, *_SPINNAKER),
    },
    "SpiNNaker 2": {
        "synaptic": (450e-12, *_SPINNAKER2),
        "neuron_active": (2.19e-9, *_SPINNAKER2),
        "neuron_idle": (2.19e-9, *_SPINNAKER2),
    },
    "ODIN": {"synaptic": (12.7e-12, "average", "measured", 0.55, 28)},
    "ReckOn": {"synaptic": (5.3e-12, "unstated", "measured", 0.5, 28)},
    "Tianjic": {"synaptic": (1.54e-12, "unstated", "unstated", None, 28)},
    "SENECA": {"synaptic": (2.8e-12, "unstated", "simulated", None, 22)},
}


def test_chips_have_the_constants_of_their_sources():
    got = {
        chip.name: {
            name: (c.value, c.scope, c.basis, c.voltage, c.node)
            for name, c in vars(chip).items()
            if isinstance(c, Constant)
        }
        for chip in energy.CHIPS
    }
    assert got == PUBLISHED
    for chip in energy.CHIPS:
        for c in vars(chip).values():
            assert not isinstance(c, Constant) or "(20" in c.source


def test_a_constant_shows_value_unit_and_where_it_is_from():
    assert repr(Constant(2e-3, "mine", unit="W", scope="unstated")) == (
        "Constant(0.002 W, 'mine', unstated, measured)"
    )
    assert repr(energy.TIANJIC) == (
        "Chip(name='Tianjic', synaptic=Constant(1.54e-12 J, 'Tang et al. (2023), Front. Neurosci."
        " 17, 1187252, table 3', unstated, unstated, 28 nm))"
    )
    assert repr(energy.TRUENORTH_HOPS.hop_ew).endswith("marginal, measured, 0.775 V, 28 nm)")


def test_a_chip_is_the_same_after_pickle_and_copy():
    for chip in energy.CHIPS:
        assert pickle.loads(pickle.dumps(chip)) == copy.deepcopy(chip) == chip


# --- what is refused ---


@pytest.mark.parametrize("chip", [energy.TRUENORTH, energy.TRUENORTH_AVERAGE, energy.ODIN])
def test_hops_are_not_added_to_what_has_them_in_it(chip):
    hop = energy.TRUENORTH_HOPS.hop_ew
    message = rf"synaptic event of {chip.name} .*'{chip.scope}': \['hop_ew'\] beside it would be"
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(chip, hop_ew=hop)


def test_static_power_may_stand_beside_a_slope_but_not_an_average():
    static = Constant(0.02, "a measurement of one's own", unit="W")
    assert dataclasses.replace(energy.TRUENORTH, static=static).static is static
    with pytest.raises(ValueError, match=r"\['static'\] beside it would be counted twice"):
        dataclasses.replace(energy.TRUENORTH_AVERAGE, static=static)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Constant(-1.0, "?"), "value must be finite and >= 0 J; got -1.0"),
        (lambda: Constant(float("inf"), "?"), "value must be finite and >= 0 J; got inf"),
        (lambda: Constant(np.array([1.0, -2.0]), "?"), "value must be .* 0 J; got -2.0 .1 of 2"),
        (lambda: Constant("1 pJ", "?"), "value must be finite and >= 0 J; got '1 pJ'"),
        (lambda: Constant(1.0, "?", basis="guessed"), "basis must be 'measured' or .*'guessed'"),
        (lambda: Constant(float("nan"), "?"), "value must be finite and >= 0 J; got nan"),
        (lambda: Constant(1.0, "?", scope="total"), "scope must be 'marginal' or .*got 'total'"),
        (lambda: Constant(1.0, "?", unit="pJ"), "unit must be 'J' or 'W'; got 'pJ'"),
        (lambda: Chip("c", Constant(1.0, "?", unit="W")), "synaptic of c must be in J; got W"),
        (lambda: Chip("c", static=Constant(1.0, "?")), "static of c must be in W; got J"),
        (
            lambda: energy.energy(DID._replace(spikes=-1.0), energy.LOIHI),
            "spikes must be finite and >= 0",
        ),
        (lambda: run({"first": rasters()["first"]}), r"rasters must have .*\['hidden'\]"),
        (lambda: run(rasters(), inputs=None), r"inputs must have the spikes of \['x'\].*zeros"),
        (lambda: run(rasters() | {"y": jnp.zeros((T, 1))}), r"rasters must be among .*\['y'\]"),
        (
            lambda: run(rasters() | {"first": jnp.zeros((T, 4))}),
            r"raster 'first' must have shape \[3\] or \[20, 3\]; got \(20, 4\)",
        ),
        (
            lambda: run(rasters() | {"first": jnp.zeros((5, 3))}),
            "all spikes must span the same steps; got .*'first'.: 5",
        ),
        (
            lambda: run({n: z.sum(0) for n, z in rasters().items()}, inputs={"x": jnp.zeros(5)}),
            "n_steps must be given, as all spikes are counts",
        ),
        (
            lambda: run(rasters() | {"first": jnp.full((T, 3), -0.1)}),
            r"raster 'first' must lie in \[0, 1\]; got -0.1",
        ),
        (
            lambda: run(rasters() | {"first": jnp.full(3, 21.0)}),
            r"raster 'first' must lie in \[0, 20\]; got 21",
        ),
        (
            lambda: run(rasters(), inputs={"x": jnp.full(5, jnp.inf)}),
            "input 'x' must be finite and >= 0 spikes; got inf",
        ),
        (lambda: run(rasters(), dt=0.0), "dt must be finite and > 0 ms"),
        (lambda: run(rasters(), dt=jnp.ones(2)), r"dt must be one number; got shape \(2,\)"),
        (lambda: run(rasters(), n_changes=jnp.ones(2)), "n_changes must be one number"),
        (lambda: run(rasters(), n_steps=20.0), "n_steps must be a whole number >= 1; got 20.0"),
        (lambda: run(rasters(), n_steps=21), "all spikes must span the same steps; got .* 21"),
        (lambda: run(rasters(), n_changes=-1), "n_changes must be finite and >= 0 changes"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_costs_nothing_may_be_said():
    assert Constant(0, "none").value == 0


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Chip("c", 5e-12),
            "synaptic of c must be an instance of Constant; got float 5e-12",
        ),
        (lambda: run(INPUTS["x"]), r"rasters must map names .* got ArrayImpl: pass {.name.: spik"),
        (lambda: run(rasters(), inputs=3), "inputs must map names to spikes; got int"),
        (
            lambda: run(rasters(), route="multicast"),
            "route must have __call__; got str 'multicast'",
        ),
        (
            lambda: energy.activity(network(), rasters(), PLACEMENT, (3, 2, 2), dt=1.0),
            r"mesh must be an instance of Mesh; got tuple \(3, 2, 2\)",
        ),
        (
            lambda: energy.activity(nj.Network, rasters(), PLACEMENT, MESH, dt=1.0),
            r"net must be an instance; got the class: pass Network\(\)",
        ),
        (lambda: energy.energy(DID, Chip), "chip must be an instance; got the class"),
        (lambda: energy.energy(DID, "Loihi"), "chip must be an instance of Chip; got str 'Loihi'"),
        (
            lambda: energy.energy(5.0, energy.LOIHI),
            "activity must be an instance of Activity; got float",
        ),
    ],
)
def test_what_is_of_another_kind_is_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()
