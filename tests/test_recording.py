"""Probes show what the records hold, and a raster becomes its spikes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj

T = 30


def recorded(probe=None, **options):
    layer = nj.Layer(4, nj.LIF(tau_mem=5.0), nj.Exponential(3.0))
    out = nj.Layer(2, nj.LeakyIntegrator())
    links = {
        "in": nj.Projection("x", "h", nj.Dense(3, 4), gain=3.0),
        "out": nj.Projection("h", "out", nj.Dense(4, 2)),
    }
    net = nj.Network({"h": layer, "out": out}, links)
    weights = net.init_weights(jax.random.key(0))
    options |= {} if probe is None else {"probe": probe}
    return nj.simulate(net, weights, net.init(), {"x": jnp.ones(3)}, n_steps=T, dt=0.5, **options)[
        1
    ]


def test_probes_are_parts_of_the_whole_record():
    whole = recorded(lambda records: records)["h"]
    assert whole.z.any()
    everything = recorded(
        lambda r: [
            nj.recording.spikes("h")(r),
            nj.recording.potential("h")(r),
            nj.recording.potential("h", 2)(r),
            nj.recording.potential("h", [3, 0])(r),
            nj.recording.current("h", range(2))(r),
            nj.recording.current("h", np.int32(1))(r),
        ]
    )
    v, i = whole.neuron.v, whole.current
    for found, expected in zip(
        everything, [whole.z > 0, v, v[:, 2], v[:, [3, 0]], i[:, :2], i[:, 1]], strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    assert everything[0].dtype == bool
    z = recorded()
    assert set(z) == {"h", "out"}
    np.testing.assert_array_equal(z["h"], whole.z)


def test_a_current_is_the_arrivals_as_the_synapse_filters_them():
    r = recorded(lambda records: records["h"])
    # held over dt, a current that decays acts on the membrane as its mean over exp(-(dt - u) / tau)
    i, dt, tau_mem, tau_syn = np.asarray(r.synapse.i), 0.5, 5.0, 3.0
    np.testing.assert_allclose(
        i[1:], i[:-1] * np.exp(-dt / tau_syn) + np.asarray(r.arrivals)[1:], rtol=1e-5
    )
    kernel = tau_syn / (tau_syn - tau_mem) * (np.exp(-dt / tau_syn) - np.exp(-dt / tau_mem))
    kernel /= -np.expm1(-dt / tau_mem)
    np.testing.assert_allclose(r.current[1:], kernel * i[:-1], rtol=1e-4)


def test_a_raster_becomes_its_spikes():
    z = np.zeros((5, 3))
    z[[1, 1, 4], [2, 0, 1]] = 1
    spikes = nj.recording.spike_list(jnp.asarray(z), dt=0.5)
    np.testing.assert_array_equal(spikes.times, [1.0, 1.0, 2.5])
    np.testing.assert_array_equal(spikes.neurons, [0, 2, 1])
    assert nj.recording.spike_list(z > 1, dt=0.5).times.shape == (0,)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: recorded(nj.recording.potential("g")),
            ValueError,
            r"layer must be one of \['h', 'out'\]; got 'g'",
        ),
        (
            lambda: recorded(nj.recording.potential("h", 4)),
            ValueError,
            r"neuron must be in \[0, 3\], those of layer 'h'; got 4",
        ),
        (lambda: nj.recording.potential("h", 1.5), TypeError, "neuron must be a whole .* got 1.5"),
        (
            lambda: nj.recording.spike_list(jnp.zeros((2, 5, 3)), dt=1.0),
            ValueError,
            r"z must have shape \[T, n\]; got \(2, 5, 3\): pass one layer of one sample",
        ),
        (
            lambda: nj.recording.spike_list(jnp.zeros((5, 3)), dt=0.0),
            ValueError,
            "dt must be finite and > 0 ms; got 0.0",
        ),
    ],
)
def test_refuses_what_is_not_there(make, error, message):
    with pytest.raises(error, match=message):
        make()
