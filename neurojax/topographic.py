"""The topographic network: neurons on grids, each with a receptive field and a few far partners."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
from jaxtyping import Array, Key

from neurojax._check import between, brief, count, flag, instance, nonnegative, prng_key
from neurojax._repr import described
from neurojax.network import Layer, Network, Projection, fold
from neurojax.neurons.leaky import LIF, LeakyIntegrator
from neurojax.plasticity.three_factor import Rule, ThreeFactor
from neurojax.structured import READOUT, Readout
from neurojax.wiring.convolution import Conv2D, Local2D
from neurojax.wiring.generators import fan_in, long_range
from neurojax.wiring.layouts import Dense, FanIn

__all__ = ["Sheet", "topographic"]

Size = tuple[int, int, int]  # neurons a place, rows, columns


def _odd(name: str):
    """Field converter: an odd width of a window, or 0 for none."""

    def convert(x: Any) -> int:
        x = count(name, 0)(x)
        if x and x % 2 == 0:
            raise ValueError(f"{name} must be odd, so that it has a middle, or 0; got {x}")
        return x

    return convert


def _window(x: Any) -> int | None:
    """Field converter: a window forward, None for one that takes in everything."""
    return None if x is None else _odd("window")(x)


@described
class Sheet(eqx.Module):
    """A hidden layer on a grid of places, `features` neurons at each, and what a neuron hears.

    Of the layer below: all neurons at `window` x `window` places about its own, and `far` others,
    drawn from outside the window. Of its own layer, one step late: likewise `near` x `near` places
    and `near_far` others. `stride` places of the layer below lie between two of its own, so rows
    and columns are those below over stride, rounded up. `window` 0 leaves one place, that hears
    `far` neurons from anywhere below, and None one place that hears them all. `shared`: neurons of
    one feature have the same weights in their windows below, wherever they are (a convolution,
    `Conv2D`); all others have weights of their own.
    Raises `ValueError` for even windows, numbers below 0 (`features`, `stride`: 1), a sheet that
    hears nothing, and weights to share without a window.

    >>> nj.Sheet(8, window=7, stride=2)  # 49 pixels a neuron, 8 neurons for each 2 x 2 of them
    Sheet(features=8, window=7, stride=2, far=0, near=0, near_far=0, shared=False)
    """

    features: int = eqx.field(static=True, converter=count("features"))
    window: int | None = eqx.field(static=True, default=5, converter=_window)
    stride: int = eqx.field(static=True, default=1, converter=count("stride"))
    far: int = eqx.field(static=True, default=0, converter=count("far", 0))
    near: int = eqx.field(static=True, default=0, converter=_odd("near"))
    near_far: int = eqx.field(static=True, default=0, converter=count("near_far", 0))
    shared: bool = eqx.field(static=True, default=False, converter=flag("shared"))

    def __check_init__(self):
        if self.window == 0 and not self.far:
            raise ValueError("far must be >= 1 without a window; got 0: pass window= or far=")
        if self.window is None and self.far:
            raise ValueError(f"far must be 0 where all is heard, window None; got {self.far}")
        if self.shared and not self.window:
            raise ValueError(f"shared needs a window of 1 or more; got window={self.window}")

    def size(self, below: Size) -> Size:
        """Neurons a place, rows and columns, over those of the layer `below`."""
        ny, nx = (-(-n // self.stride) for n in below[1:]) if self.window else (1, 1)
        return (self.features, ny, nx)

    def hears(self, key: Key[Array, ""], below: Size) -> list[Conv2D | Local2D | Dense | FanIn]:
        """Wiring from the layer below: what is near, then what is far."""
        n_pre, n_post = _number(below), _number(self.size(below))
        if self.window is None:
            return [Dense(n_pre, n_post)]
        if not self.window:
            if self.far > n_pre:
                raise ValueError(f"far must be at most {n_pre}, all below; got {self.far}")
            return [fan_in(key, n_pre, n_post, self.far / n_pre)]
        windows = dict(stride=self.stride, padding=self.window // 2)
        near = Local2D(below, self.features, self.window, **windows)
        alike = Conv2D(below, self.features, self.window, **windows) if self.shared else near
        return [alike, *_far(key, near, self.far)]

    def loops(self, key: Key[Array, ""], own: Size) -> list[Local2D | FanIn]:
        """Wiring within the layer, whose size is `own`: what is near, then what is far."""
        if not self.near:
            fan = self.near_far and fan_in(
                key, _number(own), _number(own), self.near_far / _number(own)
            )
            return [fan] if fan else []
        near = Local2D(own, self.features, self.near, padding="same")
        return [near, *_far(key, near, self.near_far)]


def _far(key, near: Local2D, k: int) -> list[FanIn]:
    return [long_range(key, near, k)] if k else []


def _number(size: Size) -> int:
    return size[0] * size[1] * size[2]


def topographic(
    key: Key[Array, ""],
    size: Size,
    sheets: Sequence[Sheet],
    n_classes: int,
    *,
    neuron: Any = None,
    rule: Rule | Sequence[Rule] | None = None,
    density: float | None = None,
    population: int = 10,
    readout: LeakyIntegrator | LIF | None = None,
    inhibition: float = 1.0,
    max_fan_in: int | None = None,
    gain_in: float = 2.0,
    gain_forward: float = 2.0,
    gain_recurrent: float = 0.3,
) -> Network:
    """Input "input" -> sheets "h1", "h2", ... on grids -> "readout", which hears every sheet.

    `size` is (channels, rows, columns) of pictures, which come flat, [n_in], nA or spikes: neuron
    (c, y, x) of any layer has the number (c rows + y) columns + x. What is far is a projection of
    its own, "h1->h2 far"; each synapse has its own weight, but in `shared` windows, and all learn.
    No neuron of the network hears more than `max_fan_in` others: what a core of the hardware can
    hold (of a leaky readout, whose copies are merged, each copy). `density` is the part of each
    sheet that one of the `population` readout neurons of a class hears; None is all, or as much as
    `max_fan_in` allows. `neuron` (None: `LIF()`) and `rule` (None: `ThreeFactor()`; one, or
    one a sheet) serve the sheets, `gain_in`, `gain_forward` and `gain_recurrent` (nA) scale initial
    weights, near and far ones together; the readout is that of `structured`.

    >>> sheets = [nj.Sheet(8, window=7, stride=2), nj.Sheet(512, window=0, far=256)]
    >>> net = nj.topographic(jax.random.key(0), (1, 28, 28), sheets, 10, max_fan_in=256)
    >>> [f"{name}: {p.connectivity}" for name, p in net.projections.items()][1:2]
    ['h1->h2: FanIn(1568 -> 512, fan-in 256)']

    Source: Tang and Xie (2026), arXiv 2605.00402, for local density, long range and sparse readout;
    Hubel and Wiesel (1962), J Physiol 160, 106, for receptive fields on a grid.
    Raises `ValueError` for sizes that do not fit one another, a neuron that hears more than
    `max_fan_in`, fewer than two classes and a gain that is not finite and >= 0; `TypeError` for
    what is no sheet, neuron, rule or key.
    """
    key, out = prng_key(key), Readout.of(n_classes, population, readout)
    for name, x in dict(
        gain_in=gain_in, gain_forward=gain_forward, gain_recurrent=gain_recurrent,
        inhibition=inhibition,
    ).items():  # fmt: skip
        nonnegative(name, "nA")(x)
    neuron = LIF() if neuron is None else instance("neuron", neuron, "init", "step")
    most = None if max_fan_in is None else count("max_fan_in")(max_fan_in)
    below, pre = _size(size), "input"
    given, sizes, layers, projections = _sheets(sheets), list[int](), {}, {}
    for i, (sheet, own_rule) in enumerate(zip(given, _rules(rule, len(given)), strict=True)):
        name, own = f"h{i + 1}", sheet.size(below)
        gain = gain_forward if i else gain_in
        forward = sheet.hears(fold(key, f"{pre}->{name}"), below)
        loop = sheet.loops(fold(key, f"{name}->{name}"), own)
        _refuse_wide(name, [*forward, *loop], most)
        projections |= _shared(pre, name, forward, gain, 0)
        projections |= _shared(name, name, loop, gain_recurrent, 1)
        layers[name] = Layer(_number(own), neuron, rule=own_rule)
        sizes.append(layers[name].n)
        below, pre = own, name
    rivals = out.population * (out.n_classes - 1) if out.spiking else 0
    density = _density(density, sizes, most, rivals)
    for name, n in zip(layers, sizes, strict=True):
        heard = fold(key, f"{name}->readout")
        projections[f"{name}->readout"] = out.hears(heard, name, n, density)
    if out.spiking:
        projections["readout->readout"] = out.lateral(inhibition * density)
    return Network(layers | {READOUT: out.layer(density)}, projections)


def _shared(pre: str, post: str, wirings: list, gain: float, delay: int) -> dict[str, Projection]:
    """A projection for what is near and one for what is far, whose currents vary by `gain`."""
    widths = [_width(c) for c in wirings]
    return {
        f"{pre}->{post}" + " far" * i: Projection(
            pre, post, c, delay=delay, gain=gain * (k / sum(widths)) ** 0.5
        )
        for i, (c, k) in enumerate(zip(wirings, widths, strict=True))
    }


def _width(wiring: Conv2D | Local2D | Dense | FanIn) -> int:
    """Synapses onto the neuron that has most, known without drawing."""
    if isinstance(wiring, Conv2D | Local2D):
        return int((wiring.seen() < wiring.n_pre).sum(-1).max())
    return wiring.shape[1]


def _refuse_wide(name: str, wirings: list, most: int | None) -> None:
    wide = sum(map(_width, wirings))
    if most is not None and wide > most:
        raise ValueError(
            f"layer {name!r} must have a fan-in of at most {most}, max_fan_in; got {wide}: pass a"
            " smaller window, far, near or near_far, or window=0 with far"
        )


def _density(density: float | None, sizes: list[int], most: int | None, rivals: int = 0) -> float:
    """Part of each layer that a readout neuron hears, beside its rivals, within the bound."""
    total, most = sum(sizes), sum(sizes) if most is None else most - rivals
    if rivals and most < len(sizes):
        raise ValueError(
            f"layer {READOUT!r} must have a fan-in of at most {most + rivals}, max_fan_in; got"
            f" {rivals} from neurons of other classes alone: pass a smaller population"
        )
    heard = lambda part: sum(max(1, round(part * n)) for n in sizes)  # noqa: E731
    # Each layer's share is rounded, by a half at most, and is one at least.
    halves = range(2 * most - len(sizes), 0, -1)
    parts = (m / 2 / total for m in halves)
    fits = 1.0 if most >= total else next((x for x in parts if heard(x) <= most), 0.5 / total)
    density = fits if density is None else density
    between("density", 0.0, 1.0)(density)
    if (wide := heard(density)) > most:
        raise ValueError(
            f"layer {READOUT!r} must have a fan-in of at most {most + rivals}, max_fan_in; got"
            f" {wide + rivals}: pass"
            f" density={fits:.3g}, or None"
        )
    return float(density)


def _size(size: Any) -> Size:
    if not isinstance(size, tuple | list) or len(size) != 3:
        raise ValueError(f"size must be (channels, rows, columns) of pictures; got {brief(size)}")
    channels, ny, nx = map(count("size"), size)
    return channels, ny, nx


def _sheets(sheets: Any) -> list[Sheet]:
    """The hidden layers, checked."""
    if isinstance(sheets, Sheet) or not isinstance(sheets, Sequence) or not sheets:
        raise TypeError(f"sheets must be a list of one Sheet or more; got {brief(sheets)}")
    for i, sheet in enumerate(sheets):
        if not isinstance(sheet, Sheet):
            raise TypeError(f"sheets[{i}] must be a Sheet; got {brief(sheet)}: pass nj.Sheet(8)")
    return [*sheets]


def _rules(rule: Any, n: int) -> list[Any]:
    """One rule a sheet."""
    if not isinstance(rule, list | tuple):
        return [ThreeFactor() if rule is None else rule] * n
    if len(rule) != n:
        raise ValueError(f"rule must be one, or one a sheet, {n}; got {len(rule)}")
    return [*rule]


def __dir__() -> list[str]:
    return __all__
