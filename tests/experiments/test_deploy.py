"""A network of ours, out to a file and in again: as accurate as it was, priced, put on devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from experiments import deploy
from hardware.energy import CHIPS

STEPS = 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Random hidden spikes and a readout by least squares on them; its file and its accuracy."""
    sets, rng = nj.data.load("digits"), np.random.default_rng(0)
    x, y = sets.train.images[:600].reshape(600, -1), np.eye(10)[sets.train.labels[:600]]
    first = jnp.asarray(rng.normal(size=(60, 64)) / 2, jnp.float32)
    layers = {
        "h": nj.Layer(60, nj.LIF(tau_mem=10.0)),
        "out": nj.Layer(10, nj.LeakyIntegrator(10.0)),
    }
    ins = nj.Projection("x", "h", nj.Dense(64, 60), w=first)

    def net(w):
        readout = nj.Projection("h", "out", nj.Dense(60, 10), w=w)
        return nj.Network(layers, {"in": ins, "readout": readout})

    @jax.jit
    @jax.vmap
    def run(x):
        none = net(jnp.zeros((10, 60)))
        weights = none.init_weights(jax.random.key(0))
        return nj.simulate(none, weights, none.init(), {"x": x}, n_steps=STEPS, dt=1.0)[1]["h"]

    fit = np.linalg.lstsq(np.asarray(run(jnp.asarray(x)).sum(1)), y - 0.1, rcond=1e-3)[0]
    done = net(jnp.asarray(fit.T, jnp.float32))
    weights = done.init_weights(jax.random.key(0))
    path = tmp_path_factory.mktemp("nir") / "digits.nir"
    nj.to_nir(done, weights, path, dt=1.0)
    # The readout is linear: the sum of its potentials weighs each spike by what is yet to come.
    left = 1 - np.exp(-0.1 * np.arange(STEPS, 0, -1))
    test = np.asarray(run(jnp.asarray(sets.test.images[:100].reshape(100, -1))))
    scores = np.einsum("btn,t->bn", test, left) @ fit
    return path, (scores.argmax(1) == sets.test.labels[:100]).mean(), test.sum((0, 1)) / 100


def deployed(trained, out, **options):
    return deploy.run(
        deploy.Config(file=trained[0], dt=1.0, n_steps=STEPS, test_size=100, out=out, **options)
    )


@pytest.mark.slow
def test_a_network_of_ours_is_as_accurate_from_its_file(trained, tmp_path):
    found = deployed(trained, tmp_path)
    assert found["test_accuracy_numbers"] == found["test_accuracy"] == trained[1] > 0.7
    assert json.loads((tmp_path / "metrics.json").read_text())["energy"] == found["energy"]
    assert {*found["energy"]} == {chip.name for chip in CHIPS}
    # Each spike of a hidden neuron reaches ten synapses; pictures come as currents.
    assert found["activity"]["synaptic_events"] == pytest.approx(10 * trained[2].sum(), rel=1e-5)
    loihi = found["energy"]["Loihi"]
    assert loihi["synaptic"] == pytest.approx(23.6e-12 * 10 * trained[2].sum(), rel=1e-5)
    assert 0 < found["hottest_link"] <= trained[2].sum() + STEPS * 10
    assert not [line for line in found["lost"] if line.startswith("devices")]


def test_what_devices_cost_is_told(trained, tmp_path):
    found = deployed(trained, tmp_path, synapse="linear", n_states=4)
    assert found["test_accuracy"] < found["test_accuracy_numbers"] == trained[1]
    lost = [line for line in found["lost"] if line.startswith("devices: weights of in")]
    assert lost
    assert "4 states" in lost[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (dict(file=None), "the first argument must be a NIR file; got none"),
        (dict(dt=None), "--dt must be given, in ms, as a file does not say its step; got none"),
        (dict(n_states=4), "--n-states 4 needs a --synapse other than ideal; got --synapse ideal"),
        (dict(gain=0.0), r"--gain must be in \(0, inf\); got 0.0"),
        (dict(test_size=10**6), "--test-size must be at most"),
    ],
)
def test_options_that_do_not_fit_are_refused(trained, tmp_path, options, told):
    with pytest.raises(ValueError, match=told):
        deploy.run(deploy.Config(**{"file": trained[0], "dt": 1.0, "out": tmp_path, **options}))


def test_pictures_of_another_size_are_refused(tmp_path):
    nir = pytest.importorskip("nir")
    graph = nir.NIRGraph.from_list(nir.Threshold(threshold=np.ones(10)))
    nir.write(str(tmp_path / "net.nir"), graph)
    with pytest.raises(
        ValueError, match="--data must have as many pixels as Input 'input' takes, 10"
    ):
        deploy.run(deploy.Config(file=tmp_path / "net.nir", dt=1.0, out=tmp_path / "out"))


def test_a_chip_has_no_neuron_for_biases(tmp_path):
    nir = pytest.importorskip("nir")
    one, rng = np.ones(10), np.random.default_rng(0)
    graph = nir.NIRGraph.from_list(
        nir.Affine(weight=rng.normal(size=(10, 64)), bias=0.1 * one),
        nir.LIF(tau=0.01 * one, r=one, v_leak=0 * one, v_threshold=one),
    )
    nir.write(str(tmp_path / "net.nir"), graph)
    config = deploy.Config(
        file=tmp_path / "net.nir", dt=1.0, n_steps=STEPS, test_size=20, out=tmp_path / "out"
    )
    found = deploy.run(config)
    assert found["layers"] == {"lif": 10}
    assert found["neurons"] == 10
    assert 'read: biases are sent by a neuron "bias"' in found["lost"]
