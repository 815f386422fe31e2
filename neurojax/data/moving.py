"""Digits that move before a simulated event camera: events to learn from, without a download.

The camera looks at log-intensity: a pixel sends an event where that has moved by a threshold
since its last one, one for each threshold, with the sign of the change.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from neurojax._check import count, positive
from neurojax.data.recordings import Events, events

__all__ = ["camera", "moving_digits"]

_FRAMES, _EVERY = 41, 500  # places along a way, us between them
_SIDE, _REACH = (
    12,
    10.0,
)  # pixels of the screen; to either side of its middle, where nothing is left
_AT_ONCE = 256  # screens
DIRECTIONS = ("right", "left", "down", "up")


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
    frames = np.asarray(frames, float)
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
    """Recordings, what moves in each, and whereto.

    Fields:
        recordings: list of Events
        digits: int32 [N], 0 to 9
        directions: int32 [N], 0 to 3: right, left, down, up
    """

    recordings: list[Events]
    digits: Any
    directions: Any


def moving_digits(images: Any, labels: Any, *, sweeps: int = 1, seed: int = 0) -> Moving:
    """Each picture [N, 8, 8] in [0, 1] once, moving in a direction of its own, seen for 20 ms.

    A digit crosses 8 pixels of a screen of 12 x 12 with its middle in the middle at half-time,
    shifted by up to a pixel across its way; `sweeps` of them from a picture, each in another
    direction. Which way a picture moves is drawn by `seed`, the four directions equally often.

    >>> images, labels = np.ones((4, 8, 8)) * np.eye(8), np.arange(4)
    >>> seen = nj.data.moving_digits(images, labels)
    >>> sorted(seen.directions.tolist()), seen.recordings[0].shape
    ([0, 1, 2, 3], (12, 12, 2))
    """
    found = []
    ways = _ways(images, labels, sweeps, seed)
    for tall, n in _screens(*ways[:3]):
        screen = tall.y // _SIDE
        order = np.argsort(screen, kind="stable")
        ends = np.searchsorted(screen[order], np.arange(n + 1))
        t, x, y, p = tall[:4]
        for k in (order[a:b] for a, b in zip(ends[:-1], ends[1:], strict=True)):
            found.append(Events(t[k], x[k], y[k] % _SIDE, p[k], (_SIDE, _SIDE, 2)))
    return Moving(found, ways[3], ways[1])


def moved(images: Any, labels: Any, n_steps: int, width: float, seed: int) -> tuple[Any, Any, Any]:
    """Counts [4 N, n_steps, 144] of `moving_digits` in steps of `width` ms, whatever the sign.

    And the digits and directions, [4 N].
    """
    ways, pixels, counts = _ways(images, labels, 4, seed), _SIDE * _SIDE, []
    for tall, n in _screens(*ways[:3]):
        step = np.minimum(tall.t // round(1000 * width), n_steps - 1).astype(np.int64)
        screen, y = np.divmod(tall.y, _SIDE)
        at = ((screen * n_steps + step) * _SIDE + y) * _SIDE + tall.x
        some = np.bincount(at, minlength=n * n_steps * pixels)
        counts.append(some.reshape(n, n_steps, pixels).astype(np.uint8))
    return np.concatenate(counts), ways[3], ways[1]


def _ways(images: Any, labels: Any, sweeps: int, seed: int) -> tuple[Any, Any, Any, Any]:
    """What moves in each recording, whereto, how far aside, and which digit it is."""
    images, labels = np.asarray(images, float), np.asarray(labels)
    sweeps = count("sweeps", 1, 4)(sweeps)
    if images.ndim != 3 or images.shape[1:] != (8, 8) or labels.shape != images.shape[:1]:
        got = f"{list(images.shape)} and {list(labels.shape)}"
        raise ValueError(f"images and labels must be [N, 8, 8] and [N]; got {got}")
    rng = np.random.default_rng(seed)
    first = rng.permutation(np.arange(len(images)) % 4)
    directions = ((first[:, None] + np.arange(sweeps)) % 4).ravel().astype(np.int32)
    aside = rng.uniform(-1, 1, len(directions))
    return (
        np.repeat(images, sweeps, 0),
        directions,
        aside,
        np.repeat(labels, sweeps).astype(np.int32),
    )


def _screens(images: Any, directions: Any, aside: Any) -> Iterator[tuple[Events, int]]:
    """What a camera sends of screens one above the other, and how many these are."""
    for i in range(0, len(images), _AT_ONCE):
        some = slice(i, i + _AT_ONCE)
        frames = _swept(images[some], directions[some], aside[some])  # [frames, N, side, side]
        tall = frames.reshape(_FRAMES, -1, _SIDE)
        yield camera(tall, _EVERY / 1000), frames.shape[1]


def _swept(images: np.ndarray, directions: np.ndarray, aside: np.ndarray) -> np.ndarray:
    """Pictures along their ways, [frames, N, side, side], between pixels too."""
    ahead = np.linspace(-_REACH, _REACH, _FRAMES)[:, None]
    along = _kernel(ahead * np.where(directions % 2 == 0, 1, -1))
    across, down = _kernel(aside), (directions // 2 == 1)[:, None, None]
    rows, columns = np.where(down, along, across), np.where(down, across, along)
    return rows @ images @ columns.swapaxes(-1, -2)


def _kernel(shift: np.ndarray) -> np.ndarray:
    """What each of the screen's pixels gets of each of the 8, [..., side, 8]: linear in between."""
    at = (_SIDE - 1) / 2 + shift[..., None, None] + np.arange(8) - 3.5
    return np.maximum(0, 1 - np.abs(np.arange(_SIDE)[:, None] - at))


def __dir__() -> list[str]:
    return __all__
