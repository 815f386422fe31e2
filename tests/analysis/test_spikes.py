"""Statistics of spike trains: closed forms, and SciPy."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats

import neurojax as nj
from neurojax.analysis.spikes import Trains

DT = 0.1
RNG = np.random.default_rng(0)
Z = RNG.random((4000, 12)) < np.linspace(0.0, 0.05, 12)
SEEN = nj.spikes.trains(Z, dt=DT)


def test_a_raster_is_its_spikes():
    found = nj.recording.spike_list(Z, dt=DT)
    np.testing.assert_array_equal(SEEN.times, found.times)
    np.testing.assert_array_equal(SEEN.neurons, found.neurons)
    assert (SEEN.n, SEEN.duration) == (12, pytest.approx(400.0))


def test_several_spikes_in_a_step_all_count_and_a_signed_one_is_one():
    seen = nj.spikes.trains(np.array([[2, 0], [0, -1], [1, 3]]), dt=0.5)
    np.testing.assert_array_equal(seen.times, [0.5, 0.5, 1.0, 1.5, 1.5, 1.5, 1.5])
    np.testing.assert_array_equal(seen.neurons, [0, 0, 1, 0, 1, 1, 1])
    np.testing.assert_array_equal(nj.spikes.rates(seen), [2000, 8000 / 3])


def test_pieces_are_the_run_and_parts_are_parts():
    pieces = [nj.spikes.trains(z, dt=DT) for z in np.split(Z, [700, 701])]
    whole = nj.spikes.joined(*pieces)
    np.testing.assert_allclose(whole.times, SEEN.times)
    np.testing.assert_array_equal(whole.neurons, SEEN.neurons)
    late = nj.spikes.trains(Z[701:], dt=DT)
    np.testing.assert_allclose(SEEN.after(70.1).times, late.times, atol=1e-9)
    for picked in (slice(3, 9), range(3, 9), [8, 3]):
        numbers = np.arange(12)[picked] if isinstance(picked, slice) else picked
        part = nj.spikes.trains(Z[:, list(numbers)], dt=DT)
        np.testing.assert_array_equal(nj.spikes.rates(SEEN.of(picked)), nj.spikes.rates(part))
        np.testing.assert_array_equal(SEEN.of(picked).times, part.times)


def test_rates_and_variation_are_those_of_each_train():
    np.testing.assert_allclose(nj.spikes.rates(SEEN), Z.mean(0) * 1000 / DT)
    for least in (2, 40):
        own = [np.diff(np.flatnonzero(z)) for z in Z.T]
        expected = [scipy.stats.variation(x) if len(x) >= least else np.nan for x in own]
        np.testing.assert_allclose(nj.spikes.cv(SEEN, least=least), expected)
    assert np.isnan(nj.spikes.cv(SEEN)[0])


def test_spikes_in_any_order_give_the_same():
    order = RNG.permutation(SEEN.times.size)
    mixed = SEEN._replace(times=SEEN.times[order], neurons=SEEN.neurons[order])
    for a, b in zip(nj.spikes.intervals(mixed), nj.spikes.intervals(SEEN), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("width", [0.1, 0.3, 0.7, 5.0])
def test_counts_are_those_of_whole_bins(width):
    k = round(width / DT)
    expected = Z[: len(Z) // k * k].reshape(-1, k, 12).sum(1)
    np.testing.assert_array_equal(nj.spikes.counts(SEEN, width), expected)
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(nj.spikes.fano(SEEN, width), expected.var(0) / expected.mean(0))


def test_correlations_are_numpys_and_their_mean_costs_n():
    x = nj.spikes.counts(SEEN, 5.0)[:, 1:]  # the first is silent
    expected = np.corrcoef(x.T)[np.triu_indices(11, 1)]
    np.testing.assert_allclose(nj.spikes.correlations(SEEN, 5.0), expected)
    assert nj.spikes.correlation(SEEN, 5.0) == pytest.approx(expected.mean())
    assert np.isnan(nj.spikes.correlation(SEEN.of([0, 5]), 5.0))


def test_trains_that_share_a_part_of_their_spikes_correlate_by_that_part():
    # Each takes a spike of one mother train with probability c: correlation c.
    mother, c = RNG.random((40_000, 1)) < 0.1, 0.3
    seen = nj.spikes.trains(mother & (RNG.random((40_000, 30)) < c), dt=1.0)
    p, joint = 0.1 * c, 0.1 * c**2
    expected = (joint - p**2) / (p - p**2)
    # Of 40,000 bins and 30 trains the mother's own 4,000 spikes vary most: 1 / sqrt(4000).
    assert nj.spikes.correlation(seen, 1.0) == pytest.approx(expected, rel=4 / np.sqrt(4000))


def test_synchrony_is_one_together_and_falls_as_the_root_of_n_apart():
    together = np.repeat(RNG.random((2000, 1)) < 0.1, 25, axis=1)
    assert nj.spikes.synchrony(nj.spikes.trains(together, dt=1.0), 1.0) == pytest.approx(1.0)
    apart = nj.spikes.trains(RNG.random((20_000, 25)) < 0.1, dt=1.0)
    # A variance of 20,000 draws is good to sqrt(2 / 20,000) = 1%, its root to half of that.
    assert nj.spikes.synchrony(apart, 1.0) == pytest.approx(1 / 5, rel=0.02)
    assert np.isnan(nj.spikes.synchrony(nj.spikes.trains(np.zeros((5, 2)), dt=1.0), 1.0))


def test_the_spectrum_is_welchs_in_units_of_poisson():
    total = nj.spikes.counts(SEEN, 0.2).sum(1)
    f, power = scipy.signal.welch(
        total, fs=5000.0, nperseg=200, noverlap=100, detrend="constant", return_onesided=False
    )
    found = nj.spikes.spectrum(SEEN, 0.2, segment=40.0)
    np.testing.assert_allclose(found.frequency, np.abs(f[1:101]))
    np.testing.assert_allclose(found.power, power[1:101] * 5000.0 / total.mean(), rtol=1e-9)
    # Bernoulli trains of p = 0.05 at most: 3% below Poisson; 38 segments of 100 frequencies
    assert found.power.mean() == pytest.approx(1.0, abs=0.07)


def test_a_rhythm_is_found_among_noise():
    p = 0.02 * (1 + np.cos(2 * np.pi * 35.0 * DT / 1000 * np.arange(10_000)))
    seen = nj.spikes.trains(RNG.random((10_000, 20)) < p[:, None], dt=DT)
    assert abs(nj.spikes.rhythm(seen, 20.0, 80.0) - 35.0) <= 2.5  # 20 / 4 apart


@pytest.mark.parametrize("sizes", [(1, 1), (7, 200), (150, 150)])
def test_the_distance_is_scipys(sizes):
    a, b = (RNG.integers(0, 50, n) + shift for n, shift in zip(sizes, (0, 3), strict=True))
    assert nj.spikes.ks(a, b) == pytest.approx(scipy.stats.ks_2samp(a, b).statistic)
    assert nj.spikes.ks([*a, np.nan], b) == nj.spikes.ks(a, b)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nj.spikes.rates(Z), TypeError, r"seen must be Trains; got ndarray: pass nj.spik"),
        (lambda: nj.spikes.trains(Z[0], dt=DT), ValueError, r"z must have shape \[T, n\]; got"),
        (lambda: nj.spikes.trains(Z * 0.5, dt=DT), ValueError, "z must be spikes, .*; got 0.5"),
        (lambda: nj.spikes.trains(Z, dt=0.0), ValueError, "dt must be .* > 0"),
        (lambda: nj.spikes.joined(), ValueError, r"pieces must be of one population; got sizes"),
        (lambda: nj.spikes.joined(SEEN, SEEN.of([1])), ValueError, r"got sizes \[1, 12\]"),
        (lambda: nj.spikes.joined(SEEN, Z), TypeError, "pieces must be Trains"),
        (lambda: SEEN.after(400.0), ValueError, r"start must be in \[0, 400\) ms; got 400.0"),
        (lambda: nj.spikes.cv(SEEN, least=1), ValueError, "least must be >= 2 intervals; got 1"),
        (lambda: nj.spikes.counts(SEEN, 0.0), ValueError, r"width must be in \(0, 400\] ms; got"),
        (lambda: nj.spikes.fano(SEEN, 401.0), ValueError, r"width must be in \(0, 400\] ms; got"),
        (lambda: nj.spikes.spectrum(SEEN, 1.0, segment=2.0), ValueError, "segment must be 4 to"),
        (lambda: nj.spikes.rhythm(SEEN, 50.0, 20.0), ValueError, "low, high must rise within"),
        (lambda: nj.spikes.rhythm(SEEN, 50.0, 501.0), ValueError, r"within \(0, 500\] Hz; got"),
        (lambda: nj.spikes.ks([np.nan], [1.0]), ValueError, "a must have numbers; got none"),
    ],
)
def test_refuses_what_has_no_such_statistic(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_of_no_spikes_rates_are_zero_and_variation_is_unknown():
    silent = Trains(np.zeros(0), np.zeros(0, int), 3, 10.0)
    np.testing.assert_array_equal(nj.spikes.rates(silent), np.zeros(3))
    assert np.isnan(nj.spikes.cv(silent)).all()
    assert nj.spikes.intervals(silent).times.size == 0
