"""Which population should win, and how strongly it is said."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from neurojax.plasticity.teaching import HardWTA, SoftWTA, class_scores, k_winners

SCORES = arrays.arrays(np.float32, 5, elements=st.floats(-1, 1, width=32))
TARGETS = st.integers(0, 4)

# Level 0: what these tests spend is the compiler's time.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@quick
def error(teacher, scores, target):
    return teacher(scores, target)


@given(SCORES, TARGETS, st.floats(0.125, 50, width=32), st.floats(0, 1, width=32))
def test_soft_errors_are_those_of_a_softmax_where_they_exceed_the_margin(s, target, gain, margin):
    e = error(SoftWTA(gain, margin), s, target)
    expected = np.eye(5)[target] - scipy.special.softmax(np.float64(gain) * s)
    if abs(np.abs(expected).max() - margin) < 1e-5:
        return  # either side of the margin is right, up to rounding
    expected = expected * (np.abs(expected).max() > margin)
    np.testing.assert_allclose(e, expected, atol=2e-6)
    assert float(np.sum(e)) == pytest.approx(0, abs=2e-6)


@given(SCORES, TARGETS, st.floats(0, 1, width=32))
def test_hard_errors_name_the_target_and_its_strongest_rival_until_it_leads(s, target, margin):
    e = np.asarray(error(HardWTA(margin), s, target))
    rivals = np.delete(s, target)
    if s[target] - rivals.max() > margin:
        np.testing.assert_array_equal(e, np.zeros(5))
        return
    assert e[target] == 1
    assert sorted(e) == [-1, 0, 0, 0, 1]
    assert s[e.argmin()] == rivals.max()


def test_a_hard_teacher_speaks_on_a_tie_even_without_a_margin():
    np.testing.assert_array_equal(error(HardWTA(0.0), jnp.zeros(3), 1), [-1, 1, 0])


def test_a_soft_teacher_is_silent_up_to_its_margin():
    np.testing.assert_array_equal(error(SoftWTA(margin=0.5), jnp.zeros(2), 1), [0, 0])
    np.testing.assert_array_equal(error(SoftWTA(margin=0.25), jnp.zeros(2), 1), [-0.5, 0.5])


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("teacher", [SoftWTA(gain=1.0, margin=0.6), HardWTA(0.6)])
def test_scores_may_be_whole_numbers(teacher):
    scores = jnp.array([0, 1, 0])
    for target in range(3):
        found = teacher(scores, target)
        np.testing.assert_array_equal(found, teacher(scores.astype(float), target))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("teacher", [SoftWTA(), HardWTA()])
def test_refuses_more_than_one_sample_and_labels_that_are_none(teacher):
    one, several = jnp.zeros(3), jnp.zeros((2, 3))
    for scores, target in ((several, 1), (one, jnp.zeros(2, int)), (jnp.zeros(()), 0)):
        with pytest.raises(ValueError, match=r"scores must be \[n_classes\] and target one label"):
            teacher(scores, target)
    with pytest.raises(ValueError, match=r"target must be in \[0, 3\), .* got 3"):
        teacher(one, 3)


winners = quick(k_winners, static_argnums=1)


@given(
    arrays.arrays(np.float32, 9, elements=st.floats(-3, 3, width=32)), st.sampled_from([1, 4, 9])
)
def test_k_winners_are_the_k_highest_and_of_equals_the_first(v, k):
    expected = np.zeros(9)
    expected[np.argsort(-v, kind="stable")[:k]] = 1
    np.testing.assert_array_equal(winners(v, k), expected)


@pytest.mark.usefixtures("untyped")
def test_zeros_of_both_signs_are_equal():
    for v, winner in (
        ([-0.0, 0.0], 0),
        ([1.0, 0.5], 0),
        ([-1.0, -0.5], 1),
        ([0.0, 0.5], 1),
        ([0.0, -0.5], 0),
    ):
        np.testing.assert_array_equal(winners(jnp.array(v), 1), np.eye(2)[winner])
    np.testing.assert_array_equal(k_winners(jnp.array([0, 2, 1]), 2), [0.0, 1.0, 1.0])


def test_the_score_of_a_class_is_the_mean_of_its_run():
    y = jnp.array([1.0, 3.0, 0.0, -2.0, 5.0, 5.0])
    np.testing.assert_array_equal(class_scores(y, 3), [2.0, -1.0, 5.0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("teacher", [SoftWTA(), HardWTA()])
def test_errors_keep_the_dtype_of_the_scores(teacher, dtype):
    with jax.enable_x64(True):
        e = jax.eval_shape(teacher, jnp.zeros(3, dtype), jnp.zeros((), int))
        assert e.dtype == jnp.dtype(dtype)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: k_winners(jnp.ones(4), 0), r"k must be in \[1, 4\]; got 0"),
        (lambda: k_winners(jnp.ones(4), 5), r"k must be in \[1, 4\]; got 5"),
        (
            lambda: class_scores(jnp.ones(7), 3),
            "n_classes must divide 7 readout neurons; got 3",
        ),
        (lambda: class_scores(jnp.ones(0), 3), "n_classes must divide 0 readout neurons; got 3"),
        (lambda: class_scores(jnp.ones(4), 2.0), "n_classes must be a whole number >= 1; got 2.0"),
        (lambda: class_scores(jnp.ones((2, 4)), 2), r"y must have one axis; got \(2, 4\): .*vmap"),
        (lambda: k_winners(jnp.ones(()), 1), r"v must have one axis; got \(\)"),
        (lambda: k_winners(jnp.ones(4), -1), "k must be a whole number >= 0; got -1"),
        (lambda: k_winners(jnp.ones(4), 1.5), "k must be a whole number >= 0; got 1.5"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_what_makes_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("teacher", [SoftWTA(), HardWTA()])
def test_what_is_no_number_is_no_score(teacher):
    with pytest.raises(ValueError, match="scores must be finite; got NaN or infinity"):
        teacher(jnp.array([jnp.nan, 0.0, 0.0]), 0)
    with pytest.raises(ValueError, match="v must be finite"):
        k_winners(jnp.array([0.2, jnp.nan]), 1)


def test_a_traced_nan_shows_in_the_error():
    assert np.isnan(jax.jit(lambda s: SoftWTA()(s, 0))(jnp.array([jnp.nan, 0.0, 0.0]))).all()
