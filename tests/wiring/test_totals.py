"""A fixed total of synapses: so many, and all else left to chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj

KEY, SIZES_PRE, SIZES_POST = jax.random.key(0), [50, 30], [40, 60, 20]
NUMBER = np.array([[4000, 0], [1500, 3000], [7, 600]])


@pytest.mark.parametrize("piece", [1 << 17, 1000])
def test_ends_of_a_fixed_total_are_drawn_alone(piece, monkeypatch):
    monkeypatch.setattr("neurojax.wiring.totals._PIECE", piece)
    c = nj.fixed_total(KEY, SIZES_PRE, SIZES_POST, NUMBER)
    assert (c.n_pre, c.n_post, c.shape) == (80, 120, (NUMBER.sum(),))
    of, to = (np.repeat(np.arange(len(x)), x) for x in (SIZES_PRE, SIZES_POST))
    pairs = np.zeros((120, 80), int)
    np.add.at(pairs, (np.asarray(c.index), np.asarray(c.edges().pre)), 1)
    first_pre, first_post = ([0, *np.cumsum(x)[:-1]] for x in (SIZES_PRE, SIZES_POST))
    found = np.add.reduceat(np.add.reduceat(pairs, first_post, 0), first_pre, 1)
    np.testing.assert_array_equal(found, NUMBER)
    # Pearson's sum over cells has mean dof and variance 2 dof: of senders, receivers and pairs
    for a, b in zip(*np.nonzero(NUMBER > 100), strict=True):
        block = pairs[to == a][:, of == b]
        for cells in (block.sum(0), block.sum(1), block.ravel()):
            mean, dof = NUMBER[a, b] / cells.size, cells.size - 1
            chi = ((cells - mean) ** 2).sum() / mean
            assert abs(chi - dof) < 4.5 * np.sqrt(2 * dof), (a, b, cells.size)


def test_a_fixed_total_is_that_of_its_key():
    draw = lambda seed: nj.fixed_total(jax.random.key(seed), SIZES_PRE, SIZES_POST, NUMBER)  # noqa: E731
    one, again, other = draw(0), draw(0), draw(1)
    np.testing.assert_array_equal(one.index, again.index)
    np.testing.assert_array_equal(one.start, again.start)
    assert (one.index != other.index).mean() > 0.9


def test_a_fixed_total_may_be_none():
    c = nj.fixed_total(KEY, [3], [2], [[0]])
    assert c.shape == (0,)
    np.testing.assert_array_equal(c.apply(jnp.zeros(0), jnp.ones(3)), [0, 0])


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ([[1, -1]], "number must be whole numbers >= 0; got"),
        ([[1.0, 2.0]], "number must be whole numbers >= 0; got"),
        ([[1, 2], [3]], "number must be whole numbers >= 0; got"),
        ([[1], [2]], r"number must have shape \(1, 2\), post by pre; got \(2, 1\)"),
        ([[2**31, 0]], "number must add up to at most"),
    ],
)
def test_refuses_a_number_that_is_none(number, message):
    with pytest.raises(ValueError, match=message):
        nj.fixed_total(KEY, [3, 4], [5], number)


def test_refuses_what_is_no_key_and_no_size():
    with pytest.raises(TypeError, match="key"):
        nj.fixed_total(None, [3], [5], [[1]])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="sizes must be a whole number >= 1; got 0"):
        nj.fixed_total(KEY, [0], [5], [[1]])
