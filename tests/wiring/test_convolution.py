"""Windows over maps of neurons, against loops of their equation and against SciPy."""

import copy
import itertools
import math
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

import neurojax as nj
from neurojax.wiring.convolution import Conv1D, Conv2D, Local1D, Local2D

CASES = {
    "plain": (nj.Conv2D, ((2, 6, 5), 3, 3), {}),
    "same": (nj.Conv2D, ((2, 5, 5), 2, 3), dict(padding="same")),
    "all": (
        nj.Conv2D,
        ((4, 9, 8), 6, (3, 2)),
        dict(stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=2, pool=(2, 1)),
    ),
    "pooled": (nj.Conv2D, ((2, 5, 7), 3, 2), dict(pool=2, padding=1)),
    "whole": (nj.Conv2D, ((2, 5, 4), 3, 2), dict(pool=2)),
    "depthwise": (nj.Conv2D, ((3, 4, 4), 3, 2), dict(stride=2, groups=3)),
    "line": (nj.Conv1D, ((2, 11), 3, 3), dict(stride=2, padding=1, dilation=2)),
    "line pooled": (nj.Conv1D, ((2, 9), 4, 2), dict(pool=2, groups=2)),
    "local": (nj.Local2D, ((2, 6, 5), 4, 3), dict(stride=2, padding=1, groups=2)),
    "local line": (nj.Local1D, ((2, 9), 3, 2), dict(dilation=3, padding=1)),
}
QUICK = {"all", "whole", "line", "local"}
marked = [
    pytest.param(x, id=n, marks=() if n in QUICK else pytest.mark.slow) for n, x in CASES.items()
]
each = pytest.mark.parametrize("case", marked)


def made(case):
    kind, args, more = case
    return kind(*args, **more)


def slow_matrix(c: Conv1D | Conv2D | Local1D | Local2D, w: np.ndarray) -> np.ndarray:
    """Every pair by the equation: one place of one window after another."""
    pool = getattr(c, "pool", (1,) * c.axes)
    maps = [n // p for n, p in zip(c.size[1:], pool, strict=True)]
    m = np.zeros((math.prod(c.size_post), math.prod(c.size)))
    per_in, per_out = c.size[0] // c.groups, c.features // c.groups
    for i, (o, *at) in enumerate(itertools.product(*map(range, c.size_post))):
        own = w[i].reshape(per_in, *c.kernel) if isinstance(c, Local1D | Local2D) else w[o]
        for channel, *k in itertools.product(range(per_in), *map(range, c.kernel)):
            seen = [
                y * s + a * d - p
                for y, a, s, d, p in zip(at, k, c.stride, c.dilation, c.padding, strict=True)
            ]
            if any(not 0 <= y < n for y, n in zip(seen, maps, strict=True)):
                continue
            sender = o // per_out * per_in + channel
            for inner in itertools.product(*map(range, pool)):
                pre = [y * p + j for y, p, j in zip(seen, pool, inner, strict=True)]
                j = np.ravel_multi_index((sender, *pre), c.size)
                m[i, j] += own[(channel, *k)] / math.prod(pool)
    return m


def drawn(c, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(3), 4)
    shapes = c.shape, (4, 2, c.n_pre), (4, 2, c.n_post)
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=False)]


@each
@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_products_are_those_of_the_equation(case, dtype):
    """At most 36 products of the order of 1 in a sum: 36 roundings, 8 samples in `outer`."""
    with jax.enable_x64(dtype == "float64"):
        c = made(case)
        w, s, e = drawn(c, dtype)
        m = slow_matrix(c, np.asarray(w, float))
        close = dict(atol=40 * np.finfo(dtype).eps * 8, rtol=0)

        @jax.jit
        def products(w, s, e):
            forth = jax.vmap(lambda s: c.apply(w, s))(s[0])
            back = jax.vmap(lambda e: c.apply_t(w, e))(e[0])
            return c.matrix(w), forth, back, c.outer(e, s)

        matrix, forth, back, outer = products(w, s, e)
        assert {x.dtype.name for x in (matrix, forth, back, outer)} == {dtype}
        np.testing.assert_allclose(matrix, m, **close)
        np.testing.assert_allclose(forth, s[0] @ m.T, **close)
        np.testing.assert_allclose(back, e[0] @ m, **close)
        # outer: the derivative of <e, M(w) s> by w, and M is linear in w: one basis vector each
        basis = np.eye(math.prod(c.shape)).reshape(-1, *c.shape)
        full = np.einsum("abi,abj->ij", e, s)
        some = range(0, len(basis), max(1, len(basis) // 7))
        asked = [(slow_matrix(c, basis[k]) * full).sum() for k in some]
        np.testing.assert_allclose(outer.reshape(-1)[np.array(some)], asked, **close)


@pytest.mark.parametrize("case", [CASES["all"], CASES["whole"]], ids=["all", "whole"])
def test_derivatives_are_the_other_two_products(case):
    """Forth and back: <jvp(dw, ds), e> = <dw, outer(e, s)> + <ds, apply_t(w, e)>."""
    c = made(case)
    w, s, e = drawn(c)
    dw, ds = jnp.roll(w, 1, 0) + 1, jnp.roll(s, 1)

    @jax.jit
    def both(w, s, e, dw, ds):
        over = lambda w, s: jax.vmap(lambda s: c.apply(w, s))(s)  # noqa: E731
        y, there = jax.jvp(over, (w, s), (dw, ds))
        return y, there, jax.vjp(over, w, s)[1](e), c.outer(e, s)

    y, there, (by_w, by_s), asked = both(w, s[0], e[0], dw, ds[0])
    np.testing.assert_allclose(y, jax.vmap(lambda s: c.apply(w, s))(s[0]), atol=1e-5)
    np.testing.assert_allclose(by_w, asked, atol=1e-4)
    np.testing.assert_allclose(by_s, jax.vmap(lambda e: c.apply_t(w, e))(e[0]), atol=1e-4)
    # sums of some 1,000 products of the order of 1 each
    np.testing.assert_allclose(
        (there * e[0]).sum(), (dw * by_w).sum() + (ds[0] * by_s).sum(), atol=5e-3
    )


def test_shared_weights_are_a_correlation_of_scipy():
    c = nj.Conv2D((1, 12, 9), 1, (3, 4))
    w, s, _ = drawn(c)
    expected = scipy.signal.correlate(s[0, 0].reshape(12, 9), w[0, 0], "valid")
    np.testing.assert_allclose(c.apply(w, s[0, 0]).reshape(c.size_post[1:]), expected, atol=1e-5)


@each
def test_counts_are_those_of_the_pairs(case):
    c = made(case)
    pairs = slow_matrix(c, np.ones(c.shape)) > 0
    pre, post, number = (np.asarray(x) for x in c.edges())
    counted = np.zeros(pairs.shape, int)
    np.add.at(counted, (post, pre), number)
    np.testing.assert_array_equal(counted, pairs)
    np.testing.assert_array_equal(c.fan_in, pairs.sum(1))
    np.testing.assert_array_equal(c.fan_out, pairs.sum(0))


@each
def test_first_weights_give_a_current_of_variance_gain_squared(case):
    """Where no padding is seen: 4,000 inputs, so 4 standard errors are .1 of it at most."""
    c = made(case)
    w = jax.vmap(lambda key: nj.normal(key, c, 2.0))(jax.random.split(jax.random.key(0), 4000))
    x = jax.random.normal(jax.random.key(1), (4000, c.n_pre))
    current = np.asarray(jax.jit(jax.vmap(c.apply))(w, x))
    inner = np.asarray(c.fan_in) == np.asarray(c.fan_in).max()
    variance = (current[:, inner] ** 2).mean(0)
    # of a product of two Gaussians the kurtosis is at most 9: a standard error of sqrt(8 / 4000)
    np.testing.assert_allclose(variance, 4.0, rtol=4 * math.sqrt(8 / 4000))


@each
def test_spikes_may_be_booleans_and_copies_are_equal(case):
    c = made(case)
    w, s, _ = drawn(c)
    fired = s[0, 0] > 0
    np.testing.assert_array_equal(c.apply(w, fired), c.apply(w, fired.astype(w.dtype)))
    for again in (pickle.loads(pickle.dumps(c)), copy.deepcopy(c)):
        assert again == c
        assert hash(again) == hash(c)


def test_what_is_kept_a_synapse_is_kept_on_local_windows_alone():
    shared, own = nj.Conv2D((1, 4, 4), 2, 3), nj.Local2D((1, 4, 4), 2, 3, padding=1)
    for at in (shared.at_pre, shared.at_post):
        with pytest.raises(ValueError, match="Conv2D shares each weight .* pass Local2D, the same"):
            at(jnp.ones(16))
    pre, post, number = own.edges()
    x = jnp.arange(1.0, 17.0)
    heard = np.where(np.asarray(number) > 0, np.asarray(x)[np.asarray(pre)], 0)
    np.testing.assert_array_equal(own.at_pre(x).reshape(-1), heard)
    y = jnp.arange(own.n_post)
    all_posts = jnp.broadcast_to(own.at_post(y), own.shape)
    np.testing.assert_array_equal(all_posts.reshape(-1), post)


def test_repr_says_how_large_it_is():
    assert repr(made(CASES["all"])) == (
        "Conv2D(4x9x8 -> 6x3x8, kernel 3x2, stride 2x1, padding 2x1, dilation 1x2, pool 2x1,"
        " groups 2)"
    )
    assert "Local1D(2x9 -> 3x8, kernel 2" in eqx.tree_pformat({"wiring": made(CASES["local line"])})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nj.Conv2D((1, 5), 2, 3), r"size must be \(channels, height, width\) .*got \(1, 5"),
        (lambda: nj.Conv1D((1, 5, 5), 2, 3), r"size must be \(channels, length\) of the senders"),
        (lambda: nj.Conv2D((1, 0, 5), 2, 3), "size must be a whole number >= 1; got 0"),
        (lambda: nj.Conv2D((1, 5, 5), 0, 3), "features must be a whole number >= 1; got 0"),
        (lambda: nj.Conv2D((1, 5, 5), 2, 3.5), "kernel must be a whole number >= 1; got 3.5"),
        (lambda: nj.Conv2D((1, 5, 5), 2, (3, 3, 3)), r"kernel must be one number or 2; got \(3, 3"),
        (lambda: nj.Conv2D((1, 5, 5), 2, 3, stride=0), "stride must be a whole number >= 1; got 0"),
        (lambda: nj.Conv2D((1, 5, 5), 2, 3, padding=-1), "padding must be a whole number >= 0"),
        (
            lambda: nj.Conv2D((1, 5, 5), 2, 2, padding="same"),
            '"same" needs stride 1 and a kernel of',
        ),
        (lambda: nj.Conv2D((1, 5, 5), 2, 3, padding="full"), "padding must be whole numbers, or"),
        (
            lambda: nj.Conv2D((3, 5, 5), 3, 3, groups=2),
            "groups must divide the channels.* 3; got 2",
        ),
        (lambda: nj.Conv2D((4, 5, 5), 3, 3, groups=2), "groups must divide the features, 3; got 2"),
        (lambda: nj.Conv2D((1, 5, 5), 2, 3, pool=6), r"pool must fit the maps, \(5, 5\); got \(6"),
        (
            lambda: nj.Conv2D((1, 5, 5), 2, 4, dilation=2),
            r"\(5, 5\) .* got \(7, 7\).*pass padding=",
        ),
        (lambda: nj.Local2D((1, 5, 5), 2, 7), r"kernel must fit the maps, \(5, 5\)"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_windows_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
