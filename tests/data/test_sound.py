"""Sound to spikes: against SciPy's transforms, closed forms of tones, and speech made here."""

import numpy as np
import pytest
from scipy import signal

from neurojax import _memory
from neurojax.data import cochlea, log_mel, mel_bands, mel_spikes, resonances

RATE = 8000.0
VOWELS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}  # formants, Hz


def vowel(name, pitch=120.0, seconds=0.3, rate=RATE, seed=0):
    """A voice: pulses of a pitch that glides, through three resonances of 80 Hz, and a breath.

    Formants: Peterson and Barney (1952), men.
    """
    n = int(seconds * rate)
    phase = np.cumsum(pitch * np.linspace(1.1, 0.9, n) / rate)
    voice = np.diff(np.floor(phase), prepend=0.0)
    voice = voice + 0.005 * np.random.default_rng(seed).standard_normal(n)
    for f in VOWELS[name]:
        r = np.exp(-np.pi * 80 / rate)
        voice = signal.lfilter([1], [1, -2 * r * np.cos(2 * np.pi * f / rate), r * r], voice)
    return voice * signal.windows.tukey(n, 0.2) / np.abs(voice).max()


def tone(f, seconds=0.25, rate=RATE):
    return np.sin(2 * np.pi * f * np.arange(int(seconds * rate)) / rate)


def test_bands_are_those_of_a_short_time_transform():
    """SciPy's, with the same window and places; its scaling is by the sum of the window."""
    sound = vowel("a")
    found = log_mel(sound, RATE, n_bands=24, dt=5.0)
    window = signal.windows.hann(200, sym=False)
    f, t, spectra = signal.spectrogram(
        sound, RATE, window, 200, 160, detrend=False, scaling="spectrum", mode="complex"
    )
    np.testing.assert_allclose(t * RATE - 100, 40 * np.arange(len(found)))
    power = 4 * np.abs(spectra) ** 2
    want = 10 * np.log10(np.maximum(mel_bands(24, 200, RATE, 50.0, RATE / 2) @ power, 1e-10)).T
    np.testing.assert_allclose(found, want, atol=1e-6)


def test_a_full_tone_is_0_dB_and_half_of_it_6_less():
    f = 1000.0  # on a frequency of the window: 200 samples of 8 kHz are 40 Hz apart
    bands = mel_bands(20, 200, RATE, 50.0, 4000.0)
    most = 10 * np.log10(bands[:, 25].max())
    for part in (1.0, 0.5):
        found = log_mel(part * tone(f), RATE, n_bands=20)
        # the neighbours of a Hann window's peak carry a quarter of its power each
        near = 10 * np.log10((bands[:, 24:27] @ [0.25, 1.0, 0.25]).max())
        np.testing.assert_allclose(found.max(1), 20 * np.log10(part) + near, atol=1e-6)
        assert near >= most


def test_what_is_sent_of_a_band_adds_up_to_how_loud_it_is():
    """To within a threshold, where it moves by no more than one a step."""
    sound = tone(1000.0, 1.0) * np.exp(-3 * np.arange(8000) / 8000)  # 26 dB in a second
    z = mel_spikes(sound, RATE, threshold=1.0, n_bands=16).reshape(-1, 16, 2)
    loud = log_mel(sound, RATE, n_bands=16)
    b = loud[0].argmax()
    told = np.cumsum(z[:, b, 0] - z[:, b, 1])
    assert np.abs(told - (loud[:, b] - loud[0, b])).max() <= 1.0 + 1e-9
    assert told[-1] == pytest.approx(-25, abs=1)
    soft = mel_spikes(0.01 * sound, RATE, threshold=1.0, n_bands=16)
    np.testing.assert_array_equal(z, soft.reshape(z.shape))


@pytest.mark.parametrize("f", [300.0, 1000.0, 2500.0])
def test_a_tone_is_heard_at_its_own_place(f):
    best = resonances(40, 100.0, 3600.0)
    z = cochlea(tone(f), RATE, n=40)
    k = int(np.abs(best - f).argmin())
    assert abs(int(z[50:].sum(0).argmax()) - k) <= 1
    gain = np.abs(signal.freqz(*signal.gammatone(best[k], "iir", fs=RATE), [best[k]], fs=RATE)[1])
    np.testing.assert_allclose(gain, 1, rtol=0.05)  # Slaney's form is exact at low frequencies


def test_a_nerve_fires_as_its_equation_says():
    """One channel against a loop over samples, in steps of 1 and of 2.5 samples."""
    sound, f = vowel("i", seconds=0.1), resonances(1, 270.0, 271.0)[0]
    y = signal.lfilter(*signal.gammatone(f, "iir", fs=RATE), sound / np.abs(sound).max())
    for dt in (1.0, 0.3125):
        z = cochlea(sound, RATE, n=1, low=270.0, high=271.0, dt=dt, threshold=0.1)
        v, spikes, last = 0.0, [], -1
        for i, now in enumerate(y):
            v += (max(now, 0) ** 0.3 - v) * -np.expm1(-1 / (8 * 4.0))
            step = int(i / (dt * 8) + 1e-9)
            if v >= 0.1 and step != last:
                spikes.append(step)
                v, last = 0.0, step
        assert np.flatnonzero(z[:, 0]).tolist() == spikes
        assert 3 < len(spikes) < len(z)


def mel(sound, rate):
    """Of a voice that begins after silence, so that it is told how loud each band becomes."""
    return mel_spikes(np.pad(sound, (400, 0)), rate, threshold=6.0, n_bands=24, dt=5.0)


@pytest.mark.parametrize("encode", [mel, cochlea])
def test_vowels_are_told_apart_whoever_says_them(encode):
    """By the nearest mean of spike counts, at pitches that were not heard before."""
    heard = lambda v, pitch, seed: encode(vowel(v, pitch, seed=seed), RATE).sum(0)  # noqa: E731
    means = {v: np.mean([heard(v, p, 1) for p in (100.0, 140.0)], 0) for v in VOWELS}
    right = 0
    for v in VOWELS:
        for pitch in (90.0, 120.0, 155.0):
            now = heard(v, pitch, 2)
            right += min(means, key=lambda u: np.abs(means[u] - now).sum()) == v
    assert right == 9


def test_silence_stays_silent_and_loudness_makes_no_difference():
    assert not cochlea(np.zeros(800), RATE, n=8).any()
    assert not mel_spikes(np.zeros(800), RATE, n_bands=8).any()
    sound = vowel("u", seconds=0.1)
    np.testing.assert_array_equal(cochlea(sound, RATE, n=8), cochlea(0.01 * sound, RATE, n=8))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: log_mel(np.zeros(100), RATE), "sound must last 25 ms .*; got 12.5 ms"),
        (lambda: log_mel(np.zeros((2, 900)), RATE), r"got float64 of shape \(2, 900\): pass one"),
        (lambda: cochlea(np.zeros(900, np.int16), RATE), "got int16: divide it by 32767"),
        (lambda: cochlea(np.full(900, np.nan), RATE), "sound must be finite"),
        (lambda: cochlea(np.zeros(900), 0.0), r"rate must lie in \[1, 1e\+09\] Hz; got 0"),
        (lambda: cochlea(np.zeros(900), 1e30), r"rate must lie in \[1, 1e\+09\] Hz; got 1e\+30"),
        (lambda: cochlea(np.zeros(900), [RATE]), "rate must .*one number; got shape"),
        (lambda: resonances(10**10, 100.0, 4000.0), "n must be a whole number <= "),
        (lambda: resonances(9, 100.0, np.inf), "high must be finite and >= 0 Hz; got inf"),
        (lambda: resonances(9, 100.0, 10**400), "high must be finite and >= 0 Hz; got 1000"),
        (lambda: resonances(10**9, 100.0, 4000.0), "1000000000 places would take 32 GB; this"),
        (lambda: mel_bands(9, 10**9, RATE, 50.0, 4000.0), "9 bands of 500000001 freq.* 144 GB"),
        (lambda: cochlea(np.zeros(900), RATE, high=4000.0), "0 < low < high < 4000 Hz; got 100"),
        (lambda: cochlea(np.zeros(900), RATE, dt=0.1), "dt must be a sample at least, 0.125 ms"),
        (lambda: mel_bands(200, 200, RATE, 50.0, 4000.0), "n must be fewer bands; of 200 band 0"),
        (lambda: mel_spikes(np.zeros(900), RATE, threshold=0.0), "threshold must be .* > 0 dB"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("untyped")
def test_what_is_no_sound_is_refused(call, said, monkeypatch):
    monkeypatch.setattr(_memory, "memory", lambda: 16 * 10**9)
    with pytest.raises(ValueError, match=said):
        call()


def test_where_windows_lie_further_apart_than_the_sound_is_long_there_is_one():
    tone = np.sin(np.arange(400.0))
    np.testing.assert_array_equal(log_mel(tone, RATE, dt=1e30), log_mel(tone, RATE)[:1])
