"""Statistics of spike trains: rates, irregularity, correlation, synchrony, rhythms, distances.

All take `Trains`, which `trains(z, dt=dt)` makes of a raster and `joined` of several pieces, so
that a long run of a large network need never be one array. NumPy, on the host; pure functions.
Times in ms, rates and frequencies in Hz. Where a neuron fires too seldom for a statistic of its
own, that is NaN: `np.nanmean` passes over it.
"""

import operator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from neurojax._check import step_size
from neurojax.recording import spike_list

__all__ = [
    "Intervals", "Spectrum", "Trains", "correlation", "correlations", "counts", "cv", "fano",
    "intervals", "joined", "ks", "rates", "rhythm", "spectrum", "synchrony", "trains",
]  # fmt: skip

# A time on a multiple of a bin's width is the end of that bin, whatever its last digit.
_ROUNDING = 1e-6


def __dir__() -> list[str]:
    return __all__


class Trains(NamedTuple):
    """Spikes of one population, one by one, and what was watched.

    >>> seen = nj.spikes.Trains(np.array([2.0, 8.0]), np.array([0, 0]), n=2, duration=10.0)
    >>> seen.after(5.0).times  # ms
    array([3.])

    Fields:
        times: float [spikes], ms; end of the step of each spike, in (0, duration]
        neurons: int [spikes]; which neuron fired
        n: int; neurons watched, the silent ones too
        duration: float, ms; how long
    """

    times: Float[np.ndarray, " spikes"]
    neurons: Int[np.ndarray, " spikes"]
    n: int
    duration: float

    def after(self, start: float) -> "Trains":
        """What came after `start` ms, with times from there on: without what a run begins with."""
        if not 0 <= start < self.duration:
            raise ValueError(f"start must be in [0, {self.duration:g}) ms; got {start}")
        kept = self.times > start * (1 + _ROUNDING)
        times, neurons = self.times[kept] - start, self.neurons[kept]
        return Trains(times, neurons, self.n, self.duration - start)

    def of(self, neurons: Any) -> "Trains":
        """These neurons alone, numbered anew in the order given: a slice, a range or a list."""
        new = np.full(self.n, -1)
        chosen = np.arange(self.n)[neurons if isinstance(neurons, slice) else np.asarray(neurons)]
        new[chosen] = np.arange(chosen.size)
        kept = new[self.neurons] >= 0
        return Trains(self.times[kept], new[self.neurons[kept]], chosen.size, self.duration)


class Intervals(NamedTuple):
    """Times between successive spikes of one neuron.

    Fields:
        times: float [intervals], ms; how long
        neurons: int [intervals]; whose
    """

    times: Float[np.ndarray, " intervals"]
    neurons: Int[np.ndarray, " intervals"]


class Spectrum(NamedTuple):
    """Power of the population's activity, beside that of independent Poisson trains.

    Fields:
        frequency: float [f], Hz
        power: float [f]; 1 at every frequency for Poisson trains of the same rates
    """

    frequency: Float[np.ndarray, " f"]
    power: Float[np.ndarray, " f"]


def trains(z: Any, *, dt: Any) -> Trains:
    """The spikes of a raster `z` [T, n] of steps of `dt` ms: 0, 1, or how many there are.

    >>> nj.spikes.trains(jnp.zeros((10, 3)).at[4, 2].set(1), dt=0.5)
    Trains(times=array([2.5]), neurons=array([2]), n=3, duration=5.0)

    Raises `ValueError` for a raster of other than two axes or of what is no whole number, and a
    `dt` that is not positive.
    """
    z, dt = np.asarray(z), float(step_size(dt))
    return Trains(*spike_list(z, dt=dt), z.shape[1], z.shape[0] * dt)


def joined(*pieces: Any) -> Trains:
    """One run of several: the first piece, then the second, and so on, of one population.

    >>> piece = nj.spikes.trains(jnp.ones((1, 1)), dt=2.0)
    >>> nj.spikes.joined(piece, piece).times
    array([2., 4.])

    Raises `ValueError` for pieces of different populations, and without any.
    """
    sizes = {_trains("pieces", piece).n for piece in pieces}
    if len(sizes) != 1:
        raise ValueError(f"pieces must be of one population; got sizes {sorted(sizes)}")
    ends = np.cumsum([piece.duration for piece in pieces])
    times = [p.times + end - p.duration for p, end in zip(pieces, ends, strict=True)]
    neurons = np.concatenate([piece.neurons for piece in pieces])
    return Trains(np.concatenate(times), neurons, sizes.pop(), float(ends[-1]))


def rates(seen: Any) -> Float[np.ndarray, " n"]:
    """Mean rate of each neuron [n], Hz.

    >>> nj.spikes.rates(nj.spikes.trains(jnp.eye(2), dt=50.0))
    array([10., 10.])
    """
    seen = _trains("seen", seen)
    return np.bincount(seen.neurons, minlength=seen.n) * (1000 / seen.duration)


def intervals(seen: Any) -> Intervals:
    """All intervals between successive spikes of one neuron, neuron by neuron, in order.

    >>> nj.spikes.intervals(nj.spikes.trains(jnp.ones((3, 1)), dt=2.0)).times
    array([2., 2.])
    """
    seen = _trains("seen", seen)
    order = np.lexsort((seen.times, seen.neurons))
    times, neurons = seen.times[order], seen.neurons[order]
    own = neurons[1:] == neurons[:-1]
    return Intervals(np.diff(times)[own], neurons[1:][own])


def cv(seen: Any, *, least: int = 2) -> Float[np.ndarray, " n"]:
    """Coefficient of variation of each neuron's intervals [n]: 0 of a clock, 1 of a Poisson train.

        standard deviation / mean,    over all intervals of the neuron

    NaN for neurons of fewer than `least` intervals.

    >>> nj.spikes.cv(nj.spikes.trains(jnp.ones((4, 1)), dt=2.0))
    array([0.])

    Raises `ValueError` for a `least` below 2.
    """
    if operator.index(least) < 2:
        raise ValueError(f"least must be >= 2 intervals; got {least}")
    times, neurons = intervals(seen)
    k = np.bincount(neurons, minlength=seen.n)
    sums = lambda x: np.bincount(neurons, x, minlength=seen.n)  # noqa: E731
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sums(times) / k
        spread = np.sqrt(sums((times - mean[neurons]) ** 2) / k)
        return np.where(k >= least, spread / mean, np.nan)


def counts(seen: Any, width: float) -> Int[np.ndarray, "bins n"]:
    """Spikes of each neuron in successive bins of `width` ms [bins, n]; a last part is left out.

    Bin b is (b width, (b + 1) width], as a spike of a step belongs to its end.

    >>> nj.spikes.counts(nj.spikes.trains(jnp.ones((4, 1)), dt=2.0), 4.0)
    array([[2],
           [2]])

    Raises `ValueError` for a width that is not positive, or longer than what was watched.
    """
    at, kept, bins = _bins(seen, width)
    flat = np.bincount(at[kept] * seen.n + seen.neurons[kept], minlength=bins * seen.n)
    return flat.reshape(bins, seen.n)


def fano(seen: Any, width: float) -> Float[np.ndarray, " n"]:
    """Variance of each neuron's counts in bins of `width` ms over their mean [n]; 1 of Poisson.

    NaN for silent neurons. Raises `ValueError` as `counts`.

    >>> nj.spikes.fano(nj.spikes.trains(jnp.ones((6, 1)), dt=2.0), 4.0)
    array([0.])
    """
    found = counts(seen, width)
    with np.errstate(invalid="ignore"):
        return found.var(0) / found.mean(0)


def correlations(seen: Any, width: float) -> Float[np.ndarray, " pairs"]:
    """Pearson's correlation of the counts in bins of `width` ms of each pair of neurons [pairs].

    Pairs (0, 1), (0, 2), ... of the neurons whose counts vary: n (n - 1) / 2 of them, so pass
    `seen.of(range(200))` of a large population. Raises `ValueError` as `counts`.

    >>> twins = nj.spikes.trains(jnp.array([[1, 1], [0, 0], [1, 1]]), dt=1.0)
    >>> nj.spikes.correlations(twins, 1.0).round(6)
    array([1.])
    """
    x = _standard(counts(seen, width))
    return (x.T @ x / len(x))[np.triu_indices(x.shape[1], 1)]


def correlation(seen: Any, width: float) -> float:
    """Mean of `correlations` over all pairs, at the cost of n: that of their sum.

        mean of pairs = (Var(sum_i x_i) - n) / (n (n - 1)),    x_i standardised counts

    NaN for fewer than two neurons whose counts vary. Raises `ValueError` as `counts`.

    >>> twins = nj.spikes.trains(jnp.array([[1, 1], [0, 0], [1, 1]]), dt=1.0)
    >>> round(nj.spikes.correlation(twins, 1.0), 6)
    1.0
    """
    x = _standard(counts(seen, width))
    n = x.shape[1]
    return float((x.sum(1).var() - n) / (n * (n - 1))) if n > 1 else float("nan")


def synchrony(seen: Any, width: float) -> float:
    """How far the population goes together, in bins of `width` ms.

        chi^2 = Var(mean_i c_i) / mean_i Var(c_i),    c_i counts

    chi is 1 where all neurons fire alike, and 1 / sqrt(n) where each is on its own. NaN where
    no count varies. Raises `ValueError` as `counts`.
    Source: Golomb and Rinzel (1994), Clustering in globally coupled inhibitory neurons.

    >>> twins = nj.spikes.trains(jnp.array([[1, 1], [0, 0], [1, 1]]), dt=1.0)
    >>> round(nj.spikes.synchrony(twins, 1.0), 6)
    1.0
    """
    found = counts(seen, width)
    varies = found.var(0).mean()
    return float(np.sqrt(found.mean(1).var() / varies)) if varies else float("nan")


def spectrum(seen: Any, width: float, *, segment: float) -> Spectrum:
    """Power spectrum of all spikes together, counted in bins of `width` ms.

    Mean over half-overlapping segments of `segment` ms under a Hann window, the mean taken off
    each; frequencies from 1 / segment to 1 / (2 width). Power is in units of that of Poisson
    trains of the same rate, whose counts have a variance as large as their mean.
    Source: Welch (1967), The use of fast Fourier transform for the estimation of power spectra.
    Raises `ValueError` as `counts`, and for a segment of fewer than 4 bins, or too long.

    >>> nj.spikes.spectrum(nj.spikes.trains(jnp.ones((64, 1)), dt=1.0), 1.0, segment=8.0).frequency
    array([125., 250., 375., 500.])
    """
    at, kept, bins = _bins(seen, width)
    total = np.bincount(at[kept], minlength=bins).astype(float)
    m = round(segment / width)
    if not 4 <= m <= bins:
        raise ValueError(f"segment must be 4 to {bins} bins of {width:g} ms; got {segment} ms")
    window = np.hanning(m + 1)[:-1]
    pieces = np.lib.stride_tricks.sliding_window_view(total, m)[:: m // 2]
    pieces = (pieces - pieces.mean(1, keepdims=True)) * window
    power = (np.abs(np.fft.rfft(pieces)) ** 2).mean(0) / (window**2).sum()
    with np.errstate(invalid="ignore"):
        power = power / total.mean()
    return Spectrum(np.fft.rfftfreq(m, width / 1000)[1:], power[1:])


def rhythm(seen: Any, low: float, high: float, *, width: float = 1.0) -> float:
    """The frequency from `low` to `high` Hz at which the population's `spectrum` is largest.

    Resolved to low / 4, as segments last four periods of `low`; bins have `width` ms.
    Raises `ValueError` for an empty range, one beyond 1 / (2 width), and as `spectrum`.

    >>> seen = nj.spikes.trains(jnp.arange(1000)[:, None] % 25 == 0, dt=1.0)  # 40 Hz
    >>> nj.spikes.rhythm(seen, 20.0, 60.0)
    40.0
    """
    if not 0 < low < high <= 500 / width * (1 + _ROUNDING):
        raise ValueError(f"low, high must rise within (0, {500 / width:g}] Hz; got {low}, {high}")
    frequency, power = spectrum(seen, width, segment=4000 / low)
    inside = (frequency >= low * (1 - _ROUNDING)) & (frequency <= high * (1 + _ROUNDING))
    return float(frequency[inside][power[inside].argmax()])


def ks(a: Any, b: Any) -> float:
    """Distance of Kolmogorov and Smirnov of two samples [m] and [n], in [0, 1]: NaN left out.

        sup over x of |F_a(x) - F_b(x)|,    F the part of a sample that is <= x

    >>> nj.spikes.ks([1.0, 2.0, 3.0, 4.0], [1.0, 2.0])
    0.5

    Raises `ValueError` for a sample without numbers.
    """
    a, b = _sample("a", a), _sample("b", b)
    x = np.concatenate([a, b])
    apart = np.searchsorted(a, x, "right") / a.size - np.searchsorted(b, x, "right") / b.size
    return float(np.abs(apart).max())


def _sample(name: str, x: Any) -> np.ndarray:
    x = np.asarray(x, float).ravel()
    x = np.sort(x[~np.isnan(x)])
    if not x.size:
        raise ValueError(f"{name} must have numbers; got none")
    return x


def _trains(name: str, x: Any) -> Trains:
    if not isinstance(x, Trains):
        raise TypeError(
            f"{name} must be Trains; got {type(x).__name__}: pass nj.spikes.trains(z, dt=dt)"
        )
    return x


def _bins(seen: Any, width: float) -> tuple[np.ndarray, Bool[np.ndarray, " spikes"], int]:
    """Bin of each spike, which of them are in a whole one, and how many of these there are."""
    seen = _trains("seen", seen)
    if not 0 < width <= seen.duration * (1 + _ROUNDING):
        raise ValueError(f"width must be in (0, {seen.duration:g}] ms; got {width}")
    bins = int(seen.duration / width + _ROUNDING)
    at = np.ceil(seen.times / width - _ROUNDING).astype(int) - 1
    return at, at < bins, bins


def _standard(found: np.ndarray) -> np.ndarray:
    """Counts of the neurons whose counts vary, with mean 0 and variance 1."""
    x = found[:, found.var(0) > 0].astype(float)
    return (x - x.mean(0)) / x.std(0)
