"""What is written is read again bit for bit; what NIR cannot hold is refused, by name."""

import json

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import nir
import numpy as np
import pytest

import neurojax as nj

KEY = jax.random.key(0)


def network(neuron=None, synapse=None, readout=None, **hidden):
    layers = {
        "h": nj.Layer(4, neuron or nj.LIF(tau_mem=10.0), synapse, **hidden),
        "out": nj.Layer(2, readout or nj.LIF(tau_mem=5.0)),
    }
    net = nj.Network(
        layers,
        {
            "in": nj.Projection("x", "h", nj.Dense(3, 4), gain=3.0),
            "rec": nj.Projection("h", "h", nj.Dense(4, 4), delay=1),
            "last": nj.Projection("h", "out", nj.Dense(4, 2), delay=2, gain=3.0),
        },
    )
    return net, net.init_weights(KEY)


def test_a_network_comes_back_bit_for_bit(tmp_path):
    neuron = nj.LIF(tau_mem=jnp.array([3.0, 7.0, 11.3, 20.0]), v_rest=-0.1, v_reset=-0.3, r_mem=1.7)
    net, weights = network(neuron, nj.Exponential(4.7))
    graph = nj.to_nir(net, weights, tmp_path / "net.nir", dt=0.5)  # compares 256 steps itself
    found = nj.from_nir(tmp_path / "net.nir", dt=0.5)
    assert {"net.nir", "net.nir.json"} == {p.name for p in tmp_path.iterdir()}
    ours = jax.tree.map(np.asarray, net.layers["h"].neuron)
    theirs = found.net.layers["h"].neuron
    for name in ("tau_mem", "r_mem", "v_rest", "v_reset"):
        np.testing.assert_array_equal(getattr(theirs, name), getattr(ours, name), err_msg=name)
    for name in weights:
        np.testing.assert_array_equal(found.weights[name].w, weights[name].w, err_msg=name)
        assert found.net.projections[name].delay == net.projections[name].delay
    # A loop by itself is a step late for every reader; any other delay has a node.
    assert {(a, b) for a, b in graph.edges if "rec" in (a, b)} == {("h", "rec"), ("rec", "h")}
    np.testing.assert_allclose(graph.nodes["last.delay"].delay, 1e-3)
    np.testing.assert_allclose(graph.nodes["h"].w_in * 0.5e-3 / graph.nodes["h"].tau_syn, 1.0)


@pytest.mark.parametrize("reset", ["hard", "subtract"])
def test_neurons_fire_at_the_threshold_as_they_did(reset):
    """Weights in whole numbers meet it to the last digit: IF fires with every third of thirds."""
    layers = {"h": nj.Layer(1, nj.IF(v_th=1.5, reset=reset))}
    wiring = nj.Projection("x", "h", nj.Dense(1, 1), w=jnp.full((1, 1), 0.5))
    net = nj.Network(layers, {"in": wiring})
    weights = net.init_weights(KEY)
    graph = nj.to_nir(net, weights, dt=1.0, reset=reset)
    found = nj.from_nir(graph, dt=1.0, reset=reset)
    run = lambda n, w: nj.simulate(n, w, n.init(), {"x": jnp.ones(1)}, n_steps=12, dt=1.0)  # noqa: E731
    z = run(found.net, found.weights)[1]["h"][:, 0]
    np.testing.assert_array_equal(z, [0, 0, 1] * 4)
    np.testing.assert_array_equal(z, run(net, weights)[1]["h"][:, 0])


def test_euler_s_time_constant_leaves_the_same_after_a_step():
    net, weights = network()
    graph = nj.to_nir(net, weights, dt=0.5, leak="euler")
    np.testing.assert_allclose(1 - 0.5e-3 / graph.nodes["h"].tau, np.exp(-0.5 / 10), rtol=1e-7)


@pytest.mark.slow
def test_a_convolution_comes_back(tmp_path):
    first = nj.Conv2D((1, 4, 4), 2, kernel=3, padding=1)
    second = nj.Conv2D(first.size_post, 2, kernel=2, pool=2)
    fire = nj.LIF(tau_mem=10.0)
    layers = {n: nj.Layer(c.n_post, fire) for n, c in (("a", first), ("b", second))}
    layers["out"] = nj.Layer(2, fire)
    net = nj.Network(layers, {
        "c1": nj.Projection("x", "a", first, gain=4.0),
        "c2": nj.Projection("a", "b", second, gain=4.0),
        "fc": nj.Projection("b", "out", nj.Dense(second.n_post, 2), gain=4.0),
    })  # fmt: skip
    graph = nj.to_nir(net, net.init_weights(KEY), tmp_path / "net.nir", dt=1.0)
    kinds = {n: type(x).__name__ for n, x in graph.nodes.items()}
    assert kinds["c2.pool"] == "AvgPool2d"
    assert kinds["c1"] == kinds["c2"] == "Conv2d"
    assert kinds["fc.flatten"] == "Flatten"


def test_a_delay_a_synapse_becomes_one_row_a_delay():
    steps = jnp.array([[1, 2, 1], [3, 1, 2]])
    layers = {"h": nj.Layer(3, nj.LIF(tau_mem=5.0)), "out": nj.Layer(2, nj.LIF(tau_mem=5.0))}
    last = nj.Projection("h", "out", nj.Dense(3, 2), delays=nj.Delays(steps), gain=4.0)
    net = nj.Network(
        layers, {"in": nj.Projection("x", "h", nj.Dense(2, 3), gain=4.0), "last": last}
    )
    graph = nj.to_nir(net, net.init_weights(KEY), dt=1.0)
    rows = {n: x for n, x in graph.nodes.items() if n.startswith("last@") and "." not in n}
    assert sorted(rows) == ["last@1", "last@2", "last@3"]
    assert (sum(x.weight != 0 for x in rows.values()) == 1).all()


def test_what_is_dropped_is_named_and_an_adapting_threshold_comes_back(tmp_path):
    adaptive = nj.ALIF(tau_mem=10.0, tau_adapt=50.0, beta_adapt=0.3)
    net, weights = network(adaptive)
    path = tmp_path / "net.nir"
    with pytest.raises(
        ValueError, match=r"layer 'h': .* adapts: pass drop=\('adaptation',\) to le"
    ):
        nj.to_nir(net, weights, path, dt=1.0)
    assert not list(tmp_path.iterdir())
    nj.to_nir(net, weights, path, dt=1.0, drop=("adaptation",))
    assert type(nj.from_nir(path, dt=1.0).net.layers["h"].neuron) is nj.LIF
    back = nj.from_nir(path, dt=1.0, sidecar=f"{path}.json").net.layers["h"].neuron
    assert (float(back.tau_adapt), float(back.beta_adapt)) == (50.0, pytest.approx(0.3))
    told = json.loads((tmp_path / "net.nir.json").read_text())
    assert (told["dt_ms"], told["leak"], sorted(told["dropped"])) == (1.0, "exact", ["h"])
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ValueError, match="sidecar .*bad.json' does not fit the file"):
        nj.from_nir(path, dt=1.0, sidecar=tmp_path / "bad.json")


def plastic():
    net, weights = network(rule=nj.ThreeFactor(0.5))
    return net, weights


def depressing():
    net, _ = network()
    last = nj.Projection("h", "out", nj.Dense(4, 2), release=nj.TsodyksMarkram())
    net = nj.Network(net.layers, net.projections | {"last": last})
    return net, net.init_weights(KEY)


class Array(nj.Ideal):
    """In place of devices: weights that are not plain numbers."""


def crossbar():
    net, weights = network()
    return net, {n: Array(w.w, w.connectivity) for n, w in weights.items()}


def test_whatever_may_be_dropped_leaves_the_network_without_it(tmp_path):
    """One that had no refractory time, rule, release and devices is written alike."""
    plain, weights = network()
    net, _ = network(nj.LIF(tau_mem=10.0, t_ref=2.0), rule=nj.ThreeFactor(0.5))
    last = nj.Projection("h", "out", nj.Dense(4, 2), delay=2, release=nj.TsodyksMarkram())
    net = nj.Network(net.layers, net.projections | {"last": last})
    held = weights | {"rec": Array(weights["rec"].w, weights["rec"].connectivity)}
    path = tmp_path / "net.nir"
    dropped = ("refractory", "learning", "release", "devices")
    nj.to_nir(net, held, path, dt=1.0, drop=dropped)
    found = nj.from_nir(path, dt=1.0)
    nj.to_nir(plain, weights, tmp_path / "plain.nir", dt=1.0)
    assert eqx.tree_equal(
        (found.net, found.weights), nj.from_nir(tmp_path / "plain.nir", dt=1.0)[:2]
    )
    told = json.loads((tmp_path / "net.nir.json").read_text())["dropped"]
    assert {n: sorted(x) for n, x in told.items()} == {
        "h": ["rule", "t_ref_ms"], "last": ["release"], "rec": ["devices"],
    }  # fmt: skip
    assert told["h"]["t_ref_ms"] == 2.0


def test_a_sum_that_is_handed_on_goes_out_as_a_scale_of_ones():
    layers = {"sum": nj.Layer(3, nj.interchange.Relay()), "out": nj.Layer(2, nj.LIF(tau_mem=5.0))}
    links = {
        "in": nj.Projection("x", "sum", nj.Dense(2, 3), gain=3.0),
        "last": nj.Projection("sum", "out", nj.Dense(3, 2), gain=3.0),
    }
    net = nj.Network(layers, links)
    scale = nj.to_nir(net, net.init_weights(KEY), dt=1.0).nodes["sum"].scale
    np.testing.assert_array_equal(scale, np.ones(3))


def to_maps():
    layers = {"h": nj.Layer(8, nj.LIF()), "out": nj.Layer(2, nj.LIF())}
    into = nj.Projection("x", "h", nj.Dense(3, 8))
    links = {"in": into, "conv": nj.Projection("h", "out", nj.Conv2D((2, 2, 2), 2, 2))}
    net = nj.Network(layers, links)
    return net, net.init_weights(KEY)


LOST = {
    "another model": (lambda: network(nj.AdEx()), {}, "'h': NIR has no AdEx: it has LIF"),
    "a refractory time": (lambda: network(nj.LIF(t_ref=2.0)), {}, "'h': NIR has no refr"),
    "subtraction": (lambda: network(nj.LIF(reset="subtract")), {}, "'h': reset is 'subtract'.*: p"),
    "an alpha synapse": (lambda: network(synapse=nj.Alpha(5.0)), {}, "NIR has no synapse Alpha"),
    "winners": (lambda: network(winners=2), {}, "layer 'h': NIR has no winners: pass winners=None"),
    "a port": (
        lambda: network(ports={"slow": nj.Exponential(50.0)}), {}, "layer 'h': NIR has no ports",
    ),
    "a rule": (plastic, {}, r"layer 'h': NIR cannot hold a rule: pass drop=\('learning',\)"),
    "release": (depressing, {}, r"'last': NIR cannot hold short-term plasticity: pass drop="),
    "maps of a plain layer": (to_maps, {}, "'in': NIR cannot make maps of a plain layer"),
    "devices": (crossbar, {}, r"NIR cannot hold Array: pass drop=\('devices',\)"),
    "an unknown thing to drop": (
        network, {"drop": ("noise",)}, "drop must name some of adaptation",
    ),
    "an unknown output": (network, {"outputs": {"o": "q"}}, "outputs must be among .*; got 'q'"),
    "Euler's synapse": (
        lambda: network(synapse=nj.Exponential(5.0)), {"leak": "euler"}, "pass leak='exact'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LOST)
def test_what_would_be_lost_is_refused(tmp_path, case):
    make, options, told = LOST[case]
    with pytest.raises(ValueError, match=told) as error:
        nj.to_nir(*make(), tmp_path / "net.nir", dt=1.0, **options)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a/b", ".", ""])
def test_names_that_a_file_cannot_have_are_refused(name):
    net = nj.Network(
        {"h": nj.Layer(2, nj.LIF())},
        {name or "in": nj.Projection(name or "x", "h", nj.Dense(2, 2))},
    )
    if not name:
        net = nj.Network(
            {"": nj.Layer(2, nj.LIF())}, {"in": nj.Projection("x", "", nj.Dense(2, 2))}
        )
    with pytest.raises(ValueError, match="a name in NIR must be text without '/', not '.': rename"):
        nj.to_nir(net, net.init_weights(KEY), dt=1.0)


@pytest.mark.slow
def test_what_differs_when_read_again_leaves_no_file(tmp_path, monkeypatch):
    """The file is spoilt on its way: a weight that is not the network's."""
    write = nir.write

    def spoilt(path, graph):
        write(path, graph)
        with h5py.File(path, "r+") as file:
            file["node/nodes/in/weight"][...] *= 1.5

    monkeypatch.setattr(nir, "write", spoilt)
    with pytest.raises(ValueError, match=r"layer 'out': what was written differs .* in step \d+"):
        nj.to_nir(*network(), tmp_path / "net.nir", dt=1.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reading"),
    [
        ("braille_noDelay_bias_zero", dict(leak="euler", order="synapse")),
        ("braille_noDelay_noBias_subtract", dict(reset="subtract")),
        ("lif_norse", {}),
    ],
)
def test_published_graphs_go_out_as_they_came(name, reading):
    from test_nir_reading import published

    graph = nir.read(published(name))
    found = nj.from_nir(published(name), dt=0.1, **reading)
    again = nj.to_nir(found.net, found.weights, dt=0.1, outputs=found.outputs, **reading)
    assert {*map(tuple, again.edges)} == {*map(tuple, graph.edges)}
    for n, node in graph.nodes.items():
        for field, x in vars(node).items():
            if isinstance(x, np.ndarray) and x.any():  # a bias of 0 is none
                np.testing.assert_allclose(getattr(again.nodes[n], field), x, rtol=1e-6)
