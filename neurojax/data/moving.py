"""Digits that move before a simulated event camera: events to learn from, without a download.

The camera looks at log-intensity: a pixel sends an event where that has moved by a threshold
since its last one, one for each threshold, with the sign of the change.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int32

from neurojax._check import doubles, positive
from neurojax.data.recordings import Events, events

__all__ = ["camera", "moving_digits"]

_EVERY = 500  # us between frames
_COMES, _RESTS = 8.0, 12.0  # ms; it leaves as fast as it comes
LASTS = 2 * _COMES + _RESTS
_SIDE, _REACH = 12, 11.0  # pixels of the screen; from its middle to where nothing is seen
_CLOCKWISE = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]])  # right, down, left, up
_AT_ONCE = 256  # screens


def camera(
    frames: Float[np.ndarray, "frames height width"], dt: float, threshold: float = 0.25,
    dark: float = 0.1,
) -> Events:  # fmt: skip
    """What an event camera sends that sees `frames` [frames, height, width], `dt` ms apart.

        at each frame: n = trunc((L - r) / threshold) events, of the sign of n, and r += n threshold

    with L = log(dark + frame), and r what was told of a pixel, L of the first frame at first.
    Between two frames L goes along a line, and each event has the time at which it crosses
    its threshold, rounded down to whole microseconds. Pixels are in [0, 1] or any other unit of
    intensity, `dark` in the same, `threshold` in units of log-intensity.
    Raises `ValueError` for frames that are not finite and >= 0, fewer than two of them, or a dt,
    threshold or dark that is not positive.
    Source: Mueggler et al. (2017), The event-camera dataset and simulator, sec. 3; Lichtsteiner,
    Posch and Delbruck (2008), A 128 x 128 120 dB 15 us latency sensor, for the pixel.

    >>> frames = np.stack([np.zeros((1, 2)), np.array([[1.0, 0.0]])])
    >>> nj.data.camera(frames, dt=1.0, threshold=1.0).t  # log 11 = 2.4: two events of one pixel
    array([417, 834])
    """
    frames = doubles("frames must be [frames, height, width], real numbers", frames)
    if frames.ndim != 3 or len(frames) < 2 or 0 in frames.shape:
        raise ValueError(f"frames must be [two or more, height, width]; got {list(frames.shape)}")
    if not (np.isfinite(frames).all() and (frames >= 0).all()):
        raise ValueError("frames must be finite and >= 0")
    us = 1000 * float(positive("dt", "ms")(dt))
    step, dark = float(positive("threshold", "")(threshold)), float(positive("dark", "")(dark))
    levels = np.log(dark + frames) / step
    told, found = levels[0].copy(), []
    for k, (before, now) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        n = np.trunc(now - told + np.sign(now - told) * 1e-9).astype(int)  # blind to rounding
        y, x = np.nonzero(n)
        n, was, first, last = n[y, x], told[y, x], before[y, x], now[y, x]
        told[y, x] += n
        each = np.repeat(np.arange(len(n)), np.abs(n))
        ends = np.cumsum(np.abs(n))
        i = np.arange(len(each)) - np.repeat(ends - np.abs(n), np.abs(n)) + 1
        sign = np.sign(n)[each]
        crossed = (was[each] + sign * i - first[each]) / (last - first)[each]
        t = np.floor(us * (k + np.clip(crossed, 0, 1)) + 1e-6).astype(np.int64)
        found.append(np.stack([t, x[each], y[each], sign > 0]))
    t, x, y, p = np.concatenate([np.zeros((4, 0), int), *found], 1)
    return events(t, x, y, p, shape=(*frames.shape[1:], 2), sort=True)


class Moving(NamedTuple):
    """Recordings, what moves in each, and where it turns.

    Fields:
        recordings: list of Events; 28 ms of 12 x 12 pixels of two signs
        digits: int32 [N], 0 to 9
        turns: int32 [N], 0 to 3: goes on, turns right, back, left
    """

    recordings: list[Events]
    digits: Int32[np.ndarray, " N"]
    turns: Int32[np.ndarray, " N"]


def moving_digits(images: Any, labels: Any, *, seed: int = 0) -> Moving:
    """Pictures [N, 8, 8] in [0, 1] that come, rest and leave before a `camera`, four of each.

    A digit comes in within 8 ms, from out of sight to the middle of a screen of 12 x 12, give or
    take a pixel; rests for 12 ms, in which nothing is sent; and leaves within 8 ms: on, to its
    right, back, or to its left as it came, one recording each. From which of the four sides
    each comes is drawn by `seed`. So neither how it came nor how it leaves tells the turn, but
    both do, and between them lies a silence: whoever tells it has remembered.
    Raises `ValueError` for images and labels of other shapes.

    >>> seen = nj.data.moving_digits(np.ones((2, 8, 8)) * np.eye(8), np.arange(2))
    >>> seen.turns, seen.recordings[0].shape
    (array([0, 1, 2, 3, 0, 1, 2, 3], dtype=int32), (12, 12, 2))
    """
    found, ways = [], _ways(images, labels, seed)
    for tall, n in _screens(ways):
        screen = tall.y // _SIDE
        order = np.argsort(screen, kind="stable")
        ends = np.searchsorted(screen[order], np.arange(n + 1))
        t, x, y, p = tall[:4]
        for k in (order[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)):
            found.append(Events(t[k], x[k], y[k] % _SIDE, p[k], (_SIDE, _SIDE, 2)))
    return Moving(found, ways.digits, ways.turns)


def moved(images: Any, labels: Any, n_steps: int, width: float, seed: int) -> tuple[Any, Any, Any]:
    """Counts [4 N, n_steps, 144] of `moving_digits` in steps of `width` ms, whatever the sign.

    And the digits and turns, [4 N].
    """
    ways, pixels, counts = _ways(images, labels, seed), _SIDE * _SIDE, []
    for tall, n in _screens(ways):
        step = np.minimum(tall.t // round(1000 * width), n_steps - 1)
        screen, y = np.divmod(tall.y, _SIDE)
        at = ((screen * n_steps + step) * _SIDE + y) * _SIDE + tall.x
        some = np.bincount(at, minlength=n * n_steps * pixels)
        counts.append(some.reshape(n, n_steps, pixels).astype(np.uint8))
    return np.concatenate(counts), ways.digits, ways.turns


class _Ways(NamedTuple):
    images: Any  # [4 N, 8, 8]
    digits: Any
    turns: Any
    came: Any  # [4 N, 2]: steps right and down, one of them 0
    left: Any
    aside: Any  # [4 N, 2] pixels


def _ways(images: Any, labels: Any, seed: int) -> _Ways:
    """What moves in each recording, and whereto."""
    images, labels = doubles("images must be [N, 8, 8] numbers", images), np.asarray(labels)
    if images.ndim != 3 or images.shape[1:] != (8, 8) or labels.shape != images.shape[:1]:
        got = f"{list(images.shape)} and {list(labels.shape)}"
        raise ValueError(f"images and labels must be [N, 8, 8] and [N]; got {got}")
    rng = np.random.default_rng(seed)
    turns = np.tile(np.arange(4, dtype=np.int32), len(images))
    first = rng.integers(0, 4, len(turns))
    aside = rng.uniform(-1, 1, (len(turns), 2))
    digits = np.repeat(labels, 4).astype(np.int32)
    ahead = _CLOCKWISE[first], _CLOCKWISE[(first + turns) % 4]
    return _Ways(np.repeat(images, 4, 0), digits, turns, *ahead, aside)


def _screens(ways: _Ways) -> Iterator[tuple[Events, int]]:
    """What a camera sends of screens one above the other, and how many these are."""
    for i in range(0, len(ways.turns), _AT_ONCE):
        frames = _film(_Ways(*(part[i : i + _AT_ONCE] for part in ways)))
        n = frames.shape[1]
        yield camera(frames.reshape(len(frames), n * _SIDE, _SIDE), _EVERY / 1000), n


def _film(ways: _Ways) -> np.ndarray:
    """Pictures along their ways, [frames, N, side, side], between pixels too."""
    t = np.arange(0, LASTS, _EVERY / 1000)[:, None, None]
    before, behind = np.minimum(t / _COMES - 1, 0), np.maximum((t - _COMES - _RESTS) / _COMES, 0)
    at = _REACH * (before * ways.came + behind * ways.left) + ways.aside
    return _kernel(at[..., 1]) @ ways.images @ _kernel(at[..., 0]).swapaxes(-1, -2)


def _kernel(shift: np.ndarray) -> np.ndarray:
    """What each of the screen's pixels gets of each of the 8, [..., side, 8]: linear in between."""
    at = (_SIDE - 1) / 2 + shift[..., None, None] + np.arange(8) - 3.5
    return np.maximum(0, 1 - np.abs(np.arange(_SIDE)[:, None] - at))


def __dir__() -> list[str]:
    return __all__
