"""Windows over maps of neurons, against loops of their equation and against SciPy."""

import copy
import functools
import math
import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import windows

import neurojax as nj
from neurojax.wiring.convolution import Conv1D, Conv2D, Local1D, Local2D

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

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
QUICK = {"all", "local"}
marked = [
    pytest.param(x, id=n, marks=() if n in QUICK else pytest.mark.slow) for n, x in CASES.items()
]
each = pytest.mark.parametrize("case", marked)


def made(case):
    kind, args, more = case
    return kind(*args, **more)


def drawn(c, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(3), 4)
    shapes = c.shape, (4, 2, c.n_pre), (4, 2, c.n_post)
    return [jax.random.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=False)]


@st.composite
def geometries(draw):
    """Windows that fit, of any kind."""
    some = lambda low, high, n: tuple(draw(st.integers(low, high)) for _ in range(n))  # noqa: E731
    kind = draw(st.sampled_from([Conv1D, Conv2D, Local1D, Local2D]))
    shared, axes = issubclass(kind, windows.SHARED), kind.axes
    kernel, stride, dilation, padding = (some(least, 3, axes) for least in (1, 1, 1, 0))
    pool = some(1, 3, axes) if shared else (1,) * axes
    groups, per_in, per_out, *more = some(1, 3, 3 + axes)
    per_in *= draw(st.sampled_from([1, 5]))  # windows of 32 places and more go another way
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    seen = [max(1, r - 2 * p) + m for r, p, m in zip(reach, padding, more, strict=True)]
    left = some(0, 2, axes)  # of a pool that is not whole
    size = [n * p + min(m, p - 1) for n, p, m in zip(seen, pool, left, strict=True)]
    options = dict(stride=stride, padding=padding, dilation=dilation, groups=groups)
    options |= dict(pool=pool) if shared else {}
    return kind, ((groups * per_in, *size), groups * per_out, kernel), options


@quick
def products(c, w, s, e):
    """Forth, back, and the outer product, of two samples."""
    both = jax.vmap(lambda s, e: (c.apply(w, s), c.apply_t(w, e)))(s, e)
    return *both, c.outer(e, s)


def assert_products(c, dtype):
    """Against the pairs of the equation; a sum of n products is right to n roundings of theirs."""
    rng = np.random.default_rng(0)
    w, s, e = (rng.normal(size=n) for n in (c.shape, (2, c.n_pre), (2, c.n_post)))
    w, s, e = (jnp.asarray(x, dtype) for x in (w, s, e))
    at = [np.asarray(x, float) for x in (w, s, e)]
    for got, asked, most in zip(
        products(c, w, s, e), by_pairs(c, *at), by_pairs(c, *map(np.abs, at)), strict=True
    ):
        n = 8 + c.window * math.prod(getattr(c, "pool", (1,))) + 2 * c.n_post
        assert got.dtype == dtype
        assert (np.abs(got - asked) <= n * np.finfo(dtype).eps * most).all()


def by_pairs(c, w, s, e):
    m = windows.matrix(c, w)
    return s @ m.T, e @ m, windows.stored(c, e.T @ s)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.slow
def test_products_are_those_of_the_equation(case, dtype):
    with jax.enable_x64(dtype == "float64"):
        assert_products(made(case), dtype)


@settings(max_examples=5)
@given(case=geometries())
def test_products_are_those_of_the_equation_whatever_the_windows(case):
    assert_products(made(case), "float32")


@pytest.mark.slow
@settings(max_examples=150)
@given(case=geometries(), dtype=st.sampled_from(["float32", "float64"]))
def test_products_of_many_windows_are_those_of_the_equation(case, dtype):
    with jax.enable_x64(dtype == "float64"):
        assert_products(made(case), dtype)


@settings(max_examples=8)
@given(case=geometries())
def test_pairs_are_those_of_the_equation_whatever_the_windows(case):
    """Sizes too: one more place would see beyond the padding."""
    c = made(case)
    _, post, pre = windows.pairs(c)
    for m, n, k, s, p, d in zip(
        c.size_post[1:], c.pooled_size[1:], c.kernel, c.stride, c.padding, c.dilation, strict=True
    ):
        last = (m - 1) * s + (k - 1) * d - p
        assert m >= 1
        assert last < n + p <= last + s
    counted = np.zeros((c.n_post, c.n_pre + 1), int)
    pre_of, post_of, number = (np.asarray(x) for x in c.edges())
    np.add.at(counted, (post_of, pre_of), number)
    asked = np.zeros_like(counted)
    np.add.at(asked, (post, pre), 1)
    np.testing.assert_array_equal(counted, asked)


@pytest.mark.parametrize(
    "case",
    [CASES["all"], pytest.param(CASES["whole"], marks=pytest.mark.slow)],
    ids=["all", "whole"],
)
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


@pytest.mark.slow
def test_shared_weights_are_a_correlation_of_scipy():
    c = nj.Conv2D((1, 12, 9), 1, (3, 4))
    w, s, _ = drawn(c)
    expected = scipy.signal.correlate(s[0, 0].reshape(12, 9), w[0, 0], "valid")
    np.testing.assert_allclose(c.apply(w, s[0, 0]).reshape(c.size_post[1:]), expected, atol=1e-5)


@each
@pytest.mark.slow
def test_counts_are_those_of_the_pairs(case):
    c = made(case)
    pairs = windows.matrix(c, np.ones(c.shape)) > 0
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
        (lambda: nj.Local1D((2, 9), 10**9, 3), "features, as neurons of all maps, must be .* <= "),
        (lambda: nj.Conv2D((10**9, 9, 9), 2, 3), "size, as neurons of all maps, must be .* <= "),
        (lambda: nj.Conv2D((1, 5, 5), 2, 3, padding=10**9, stride=10**9), "a step of Conv2D.* EB"),
        (lambda: nj.Local1D((10**5, 9), 10**6, 3), r"a step of Local1D\(.* would take .* TB"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_windows_that_do_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()
