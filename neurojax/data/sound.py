"""Sound to spikes: bands of a spectrogram, and a cochlea of resonators.

A sound is [samples] at `rate` samples a second (Hz); what comes out is a raster [T, n] of steps of
`dt` ms, 0 or 1, float32, for a network to hear. NumPy and SciPy, on the host.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import signal

from neurojax._check import between, count, nonnegative, number, positive
from neurojax._memory import affordable

__all__ = ["cochlea", "log_mel", "mel_bands", "mel_spikes", "resonances"]

_LEAST = 1e-10  # of the power of a full-scale sine, -100 dB
_WINDOW = 25.0  # ms
_RATE = between("rate", 1.0, 1e9, "Hz")
_EAR_Q, _BROADEST = 9.26449, 24.7  # Glasberg and Moore (1990)


def mel_bands(n: int, n_fft: int, rate: float, low: float, high: float) -> Float[np.ndarray, "n f"]:
    """Triangles [n, n_fft / 2 + 1] that overlap by half, evenly spaced in mel, of height 1.

        mel(f) = 2595 log10(1 + f / 700)

    f from `low` to `high` Hz. Raises `ValueError` for a band that no frequency of the transform
    lies in, and ends that are not 0 <= low < high <= rate / 2.
    Source: O'Shaughnessy (1987), Speech communication, p. 150.

    >>> nj.data.mel_bands(4, 256, 8000.0, 100.0, 4000.0).shape
    (4, 129)
    """
    rate, n, n_fft = number(_RATE, rate), count("n")(n), count("n_fft", 2)(n_fft)
    low, high = _ends(low, high)
    if not low < high <= rate / 2:
        allowed = f"low and high must be 0 <= low < high <= {rate / 2:g} Hz"
        raise ValueError(f"{allowed}; got {low:g} and {high:g}")
    affordable(f"{n} bands of {n_fft // 2 + 1} frequencies", 32 * n * (n_fft // 2 + 1))
    to_mel = lambda f: 2595 * np.log10(1 + f / 700)  # noqa: E731
    corners = 700 * (10 ** (np.linspace(to_mel(low), to_mel(high), n + 2) / 2595) - 1)
    f = np.fft.rfftfreq(n_fft, 1 / rate)
    left, middle, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    sides = np.minimum((f - left) / (middle - left), (right - f) / (right - middle))
    bands = np.maximum(sides, 0)
    if (none := bands.max(1) == 0).any():
        raise ValueError(
            f"n must be fewer bands; of {n} band {int(none.argmax())} lies between frequencies of a"
            f" window of {1000 * n_fft / rate:g} ms"
        )
    return bands


def log_mel(
    sound: Any, rate: float, *, n_bands: int = 40, dt: float = 10.0, low: float = 50.0,
    high: float | None = None,
) -> Float[np.ndarray, "T n_bands"]:  # fmt: skip
    """Power in each mel band over each window of 25 ms, dB, [T, n_bands], a window every `dt` ms.

    Hann windows that begin at 0, dt, 2 dt ..., as many as lie within the sound, one at the
    least; 0 dB is the power that a sine of amplitude 1 has in its window, and -100 the least.
    Raises `ValueError` for a sound that is no finite [samples] or shorter than a window, a `rate`
    outside [1, 1e9] Hz, a `dt` that is not positive, and bands as `mel_bands` does.
    Source: Davis and Mermelstein (1980), Comparison of parametric representations; the window and
    spacing are those usual since.

    >>> tone = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
    >>> bool(abs(nj.data.log_mel(tone, 8000.0).max()) < 3)  # dB
    True
    """
    sound, rate = _sound(sound, rate)
    size, step = round(_WINDOW * rate / 1000), round(number(positive("dt", "ms"), dt) * rate / 1000)
    if len(sound) < size or step < 1:
        raise ValueError(
            f"sound must last {_WINDOW:g} ms and dt a sample; got {1000 * len(sound) / rate:g} ms"
            f" and {dt:g} ms"
        )
    bands = mel_bands(n_bands, size, rate, low, rate / 2 if high is None else high)
    window = np.asarray(signal.get_window("hann", size))
    starts = np.arange(0, len(sound) - size + 1, min(step, len(sound)))
    affordable(f"{len(starts)} windows of {size} samples", 24 * len(starts) * size)
    frames = sound[starts[:, None] + np.arange(size)] * window
    full = (window.sum() / 2) ** 2  # of a sine of amplitude 1, at its frequency
    power = np.abs(np.fft.rfft(frames)) ** 2 / full @ bands.T
    return 10 * np.log10(np.maximum(power, _LEAST))


def mel_spikes(
    sound: Any, rate: float, *, threshold: float = 3.0, n_bands: int = 40, dt: float = 10.0,
    low: float = 50.0, high: float | None = None, floor: float = 60.0,
) -> Float[np.ndarray, "T n"]:  # fmt: skip
    """Spikes where a band has become louder or softer by `threshold` dB, [T, 2 n_bands].

        at each step: where |L - r| >= threshold, a spike of that sign, and r moves by one threshold

    L is `log_mel`, no less than `floor` dB below the loudest of the sound, so that it does not
    depend on how loud it is recorded; r is L of the first step at first. Louder are the even
    columns, softer the odd ones: band b has 2 b and 2 b + 1. Raises `ValueError` as `log_mel`
    does, and for a threshold or floor that is not positive.
    Source: Kasabov et al. (2016), Evolving spatio-temporal data machines, sec. 2.2, step-forward.

    >>> sound = np.sin(np.arange(8000) * np.linspace(0.1, 1.0, 8000))  # a rising tone, 1 s
    >>> nj.data.mel_spikes(sound, 8000.0, n_bands=20).shape
    (98, 40)
    """
    step = number(positive("threshold", "dB"), threshold)
    loud = log_mel(sound, rate, n_bands=n_bands, dt=dt, low=low, high=high)
    loud = np.maximum(loud, loud.max() - number(positive("floor", "dB"), floor))
    told, out = loud[0].copy(), np.zeros((*loud.shape, 2), np.float32)
    for t, now in enumerate(loud):
        up, down = now - told >= step, told - now >= step
        out[t, :, 0], out[t, :, 1] = up, down
        told += step * (up.astype(float) - down)
    return out.reshape(len(loud), -1)


def resonances(n: int, low: float, high: float) -> Float[np.ndarray, " n"]:
    """Best frequencies of a cochlea's places, Hz [n], evenly spaced along it, from `low` to `high`.

    Steps of equal parts of the bandwidth ERB(f) = 24.7 (1 + 4.37 f / 1000).
    Source: Glasberg and Moore (1990), Derivation of auditory filter shapes, eqs. 3 and 4.

    >>> nj.data.resonances(3, 100.0, 4000.0).round()
    array([ 100.,  950., 4000.])
    """
    (low, high), n = _ends(low, high), count("n")(n)
    if not 0 < low < high:
        raise ValueError(f"low and high must be 0 < low < high Hz; got {low:g} and {high:g}")
    affordable(f"{n} places", 32 * n)
    corner = _EAR_Q * _BROADEST
    return np.geomspace(low + corner, high + corner, n) - corner


def cochlea(
    sound: Any, rate: float, *, n: int = 64, dt: float = 1.0, low: float = 100.0,
    high: float | None = None, threshold: float = 0.15, tau: float = 4.0,
) -> Float[np.ndarray, "T n"]:  # fmt: skip
    """Spikes of `n` hair cells, each behind a resonator of its own, [T, n] in steps of `dt` ms.

        resonator: gammatone of fourth order, bandwidth 1.019 ERB(f), gain 1 at f
        hair cell: u = max(y, 0)^0.3, a cube root as of the basilar membrane
        nerve:     tau dv/dt = -v + u;  where v >= threshold: a spike, v = 0; one a step at most

    Best frequencies are `resonances(n, low, high)` Hz, high = 0.45 rate unless told; the sound is
    put to a largest amplitude of 1, so that how loud it was recorded makes no difference, and
    silence stays silent. `tau` ms, `threshold` in units of u.
    Raises `ValueError` for a sound that is no finite [samples], a `rate` outside [1, 1e9] Hz, a
    `dt`, `tau` or `threshold` that is not positive, ends that are not 0 < low < high < rate / 2,
    and a `dt` that is shorter than a sample.
    Source: Slaney (1993), An efficient implementation of the Patterson-Holdsworth auditory
    filter bank (the resonator, as SciPy's `signal.gammatone` has it).

    >>> tone = np.sin(2 * np.pi * 1000 * np.arange(4000) / 16000)  # 250 ms of 1 kHz
    >>> z = nj.data.cochlea(tone, 16000.0, n=32)
    >>> z.shape, abs(nj.data.resonances(32, 100.0, 7200.0)[z.sum(0).argmax()] - 1000) < 100
    ((250, 32), np.True_)
    """
    sound, rate = _sound(sound, rate)
    low, high = _ends(low, 0.45 * rate if high is None else high)
    if not 0 < low < high < rate / 2:
        allowed = f"low and high must be 0 < low < high < {rate / 2:g} Hz"
        raise ValueError(f"{allowed}; got {low:g} and {high:g}")
    width = number(positive("dt", "ms"), dt) * rate / 1000
    if width < 1:
        raise ValueError(f"dt must be a sample at least, {1000 / rate:g} ms; got {dt:g}")
    steps = max(1, math.ceil(len(sound) / width - 1e-9))
    tau, high_water = (
        number(positive("tau", "ms"), tau),
        number(positive("threshold", ""), threshold),
    )
    affordable(f"{n} channels of {len(sound)} samples", 24 * count("n")(n) * len(sound))
    loudest = np.abs(sound).max()
    sound = sound / loudest if loudest else sound
    heard = np.stack([_resonated(sound, f, rate) for f in resonances(n, low, high)])
    step = np.minimum(np.arange(len(sound)) / width + 1e-9, steps - 1).astype(int)
    return _fired(np.maximum(heard, 0) ** 0.3, 1000 / (rate * tau), step, high_water)


def _resonated(sound: np.ndarray, f: float, rate: float) -> np.ndarray:
    """What a place of best frequency `f` does, gain 1 there."""
    b, a = signal.gammatone(f, "iir", fs=rate)
    return np.asarray(signal.lfilter(b, a, sound))


def _fired(u: np.ndarray, part: float, step: np.ndarray, high: float) -> np.ndarray:
    """Integrate and fire at the rate of samples; a spike belongs to the step of its sample."""
    decay, v = math.exp(-part), np.zeros(len(u))
    out = np.zeros((step[-1] + 1, len(u)), np.float32)
    for now, drive in zip(step, u.T, strict=True):
        v = decay * v + (1 - decay) * drive
        fires = (v >= high) & (out[now] == 0)
        out[now, fires] = 1
        v[fires] = 0
    return out


def _ends(low: Any, high: Any) -> tuple[float, float]:
    """Of a range of frequencies, Hz."""
    return number(nonnegative("low", "Hz"), low), number(nonnegative("high", "Hz"), high)


def _sound(sound: Any, rate: Any) -> tuple[np.ndarray, float]:
    found = np.asarray(sound)
    if found.dtype.kind in "iu":
        cure = f"divide it by {np.iinfo(found.dtype).max}"
        raise ValueError(f"sound must be floats, full scale 1; got {found.dtype}: {cure}")
    if found.ndim != 1 or found.dtype.kind != "f" or not found.size:
        got = f"{found.dtype} of shape {found.shape}"
        raise ValueError(f"sound must be floats [samples]; got {got}: pass one channel")
    if not np.isfinite(found).all():
        raise ValueError("sound must be finite; got NaN or infinity")
    return found.astype(np.float64), number(_RATE, rate)


def __dir__() -> list[str]:
    return __all__
