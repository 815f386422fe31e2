"""The kernel of a convolution as one array, which is read at each place in turn."""

import functools
import itertools
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hardware
import neurojax as nj
from hardware.crossbar import Quantiser

KEY, W_MAX = jax.random.key(0), 1.0
POLICY = hardware.OneSide(hardware.Train(64))
WIRINGS = {
    "pooled": nj.Conv2D((2, 8, 6), 3, (3, 2), padding=1, pool=2),
    "groups": nj.Conv1D((4, 9), 6, 3, dilation=2, padding=1, groups=2),
}
each = pytest.mark.parametrize("wiring", WIRINGS.values(), ids=WIRINGS)


@functools.cache
def array(wiring):
    """Devices of .02 noise a reading, in the middle of their range."""
    device = hardware.Device(hardware.linear(64), sigma_read=0.02)
    make = hardware.crossbar(device, POLICY, W_MAX, start="middle")
    return eqx.filter_jit(make)(nj.normal(KEY, wiring, 0.5), wiring, KEY)


def drawn(n, seed=1):
    return jax.random.uniform(jax.random.fold_in(KEY, seed), (n,), minval=-1.0)


@pytest.mark.slow
@each
def test_an_array_has_one_pair_a_weight_and_gives_what_numbers_give(wiring):
    made = array(wiring)
    assert made.w.shape == wiring.shape
    plain = nj.Ideal(made.w, wiring)
    s, e = drawn(wiring.n_pre), drawn(wiring.n_post, 2)
    np.testing.assert_allclose(made.apply(s), plain.apply(s), atol=1e-6)
    np.testing.assert_allclose(made.apply_t(e), plain.apply_t(e), atol=1e-6)
    asked = made.outer(e[None], s[None])
    np.testing.assert_array_equal(asked, plain.outer(e[None], s[None]))


def test_a_summed_change_of_whole_levels_is_made():
    made, level = array(WIRINGS["pooled"]), W_MAX / 64
    dw = 2 * level * 1.00001 * jnp.sign(jax.random.normal(KEY, made.w.shape))
    moved = eqx.filter_jit(lambda a, dw: a.program(dw))(made, dw)
    np.testing.assert_allclose(moved.w - made.w, dw, atol=0.02 * level)
    assert moved.n_pulses.shape == made.w.shape


def levels(x, bits, limit):
    """What a converter makes of numbers, signed."""
    step = limit / (2**bits - 1)
    return np.rint(np.clip(x, -limit, limit) / step) * step


def pooled(c, s):
    """Maps that the windows see, by the mean of each pool."""
    maps = np.zeros(c.pooled_size)
    for at in np.ndindex(maps.shape):
        cut = tuple(slice(y * p, (y + 1) * p) for y, p in zip(at[1:], c.pool, strict=True))
        maps[at] = np.asarray(s, float).reshape(c.size)[(at[0], *cut)].mean()
    return maps


def places(c):
    """Each place in the receivers' maps, and of each point of the kernel what it sees there."""
    for place in np.ndindex(*c.size_post[1:]):
        points = {}
        for k in itertools.product(*map(range, c.kernel)):
            y = [
                y * s + a * d - p
                for y, a, s, d, p in zip(place, k, c.stride, c.dilation, c.padding, strict=True)
            ]
            if all(0 <= x < n for x, n in zip(y, c.pooled_size[1:], strict=True)):
                points[k] = tuple(y)
        yield place, points


def slowly_forth(c, w, s, dac, adc, rows):
    """Place after place: lines are driven with the window, blocks of rows read apart."""
    maps, out = levels(pooled(c, s), *dac), np.zeros(c.size_post)
    per_in, per_out = c.size[0] // c.groups, c.features // c.groups
    for place, points in places(c):
        for o in range(c.features):
            lines = np.zeros((per_in, *c.kernel))
            for (k, y), i in itertools.product(points.items(), range(per_in)):
                lines[(i, *k)] = maps[(o // per_out * per_in + i, *y)]
            heard = (lines * w[o]).reshape(-1)
            blocks = [heard[at : at + rows].sum() for at in range(0, heard.size, rows)]
            out[(o, *place)] = levels(np.array(blocks), *adc).sum()
    return out.reshape(-1)


def slowly_back(c, w, e, dac, adc, rows):
    """Place after place: its features are driven, each point and channel read, then added up."""
    e, maps = levels(np.asarray(e), *dac).reshape(c.size_post), np.zeros(c.pooled_size)
    per_in, per_out = c.size[0] // c.groups, c.features // c.groups
    for place, points in places(c):
        for (k, y), g, i in itertools.product(points.items(), range(c.groups), range(per_in)):
            for first in range(0, per_out, rows):
                own = range(g * per_out + first, g * per_out + min(first + rows, per_out))
                heard = sum(w[(o, i, *k)] * e[(o, *place)] for o in own)
                maps[(g * per_in + i, *y)] += levels(heard, *adc)
    out = np.zeros(c.size)
    for at in np.ndindex(*maps.shape):
        cut = tuple(slice(y * p, (y + 1) * p) for y, p in zip(at[1:], c.pool, strict=True))
        out[(at[0], *cut)] = maps[at] / np.prod(c.pool)
    return out.reshape(-1)


@each
def test_every_place_is_driven_and_converted_apart(wiring):
    dac, adc, rows = (4, 1.0), (4, 0.8), 2
    made = replace(array(wiring), dac=Quantiser(*dac), adc=Quantiser(*adc), rows=rows)
    w, s, e = np.asarray(made.w, float), drawn(wiring.n_pre), drawn(wiring.n_post, 2)
    forth = slowly_forth(wiring, w, s, dac, adc, rows)
    back = slowly_back(wiring, w, e, dac, adc, rows)
    # A sum within a rounding of the middle between two levels may end at either.
    for got, expected in ((made.apply(s), forth), (made.apply_t(e), back)):
        assert (np.abs(np.asarray(got) - expected) > 1e-5).mean() < 0.02
    assert not np.allclose(forth, array(wiring).apply(s), atol=1e-2)


@each
def test_each_reading_has_noise_of_its_own(wiring):
    """Two devices a weight, sigma .02 each; variance over 4,000 reads within 4 standard errors."""
    made = array(wiring)
    s, n = drawn(wiring.n_pre), 4000
    keys = jax.random.split(KEY, n)
    seen = np.asarray(jax.jit(jax.vmap(lambda k: made.apply(s, key=k)))(keys))
    ones = np.ones(wiring.shape)
    lines = pooled(wiring, s).reshape(-1)
    once = replace(wiring, size=wiring.pooled_size, pool=1)
    power = np.asarray(once.matrix(jnp.asarray(ones))) @ lines**2
    deviation = 0.02 * W_MAX * np.sqrt(2 * power)
    np.testing.assert_allclose(seen.std(0), deviation, rtol=5 / np.sqrt(2 * n))
    off = np.corrcoef(seen[:, :6].T) - np.eye(6)
    assert np.abs(off).max() < 5 / np.sqrt(n)
    held = made.hold(s)
    np.testing.assert_allclose(held.read(key=keys[0]), made.apply(s, key=keys[0]), atol=1e-6)
