"""Figures of what a network did and learned: pure functions, data in, `Figure` out.

Nothing is shown, saved or kept elsewhere (no pyplot): `figure.savefig("curve.png")`. As the
last line of a notebook's cell a figure shows itself. With `ax` each function draws into axes of
yours, one a panel, and returns nothing. Time in ms; what happens in step t is drawn at its end,
(t + 1) dt.
"""

import io
from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neurojax._check import step_size

__all__ = ["learning_curve", "raster", "voltage", "weights"]

Panels = Axes | Sequence[Axes] | np.ndarray  # as `plt.subplots` gives them

# Okabe and Ito (2008): told apart by the colour-blind as well.
_BLUE, _ORANGE, _BLACK, _GREY = "#0072B2", "#D55E00", "#222222", "#B5B5B5"
_DPI = 160


class _Picture(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        png = io.BytesIO()
        self.savefig(png, format="png")
        return png.getvalue()


@overload
def learning_curve(
    val_accuracy: Sequence[float],
    train_accuracy: Sequence[float] | None = None,
    test_accuracy: float | None = None,
    *,
    ax: None = None,
) -> Figure: ...
@overload
def learning_curve(
    val_accuracy: Sequence[float],
    train_accuracy: Sequence[float] | None = None,
    test_accuracy: float | None = None,
    *,
    ax: Panels,
) -> None: ...
def learning_curve(
    val_accuracy: Sequence[float],
    train_accuracy: Sequence[float] | None = None,
    test_accuracy: float | None = None,
    *,
    ax: Panels | None = None,
) -> Figure | None:
    """Accuracy in percent after each epoch, that of the test as a dashed line.

    >>> figure = nj.plotting.learning_curve([81.0, 90.5, 93.2], test_accuracy=92.8)

    Raises `ValueError` without an epoch, for lists of two lengths, or for what is no percentage.
    """
    val = _percent("val_accuracy", val_accuracy)
    figure, (axes,) = _panels(ax, 1, 1, (4.8, 3.2))
    _draw_accuracy(axes, val, train_accuracy, test_accuracy)
    return figure


def _draw_accuracy(
    ax: Axes,
    val: np.ndarray,
    train_accuracy: Sequence[float] | None,
    test_accuracy: float | None,
) -> None:
    epochs = np.arange(1, len(val) + 1)
    marker = "o" if len(val) <= 20 else None
    if train_accuracy is not None:
        train = _percent("train_accuracy", train_accuracy)
        if len(train) != len(val):
            raise ValueError(f"train_accuracy must have {len(val)} epochs; got {len(train)}")
        ax.plot(epochs, train, color=_GREY, marker=marker, markersize=3, label="training")
    ax.plot(epochs, val, color=_BLUE, marker=marker, markersize=4, label="validation")
    if test_accuracy is not None:
        (test,) = _percent("test_accuracy", [test_accuracy])
        ax.axhline(test, color=_ORANGE, linestyle="--", label=f"test, {test:.2f}%")
    ax.set_xlim(0.5, len(val) + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.legend(loc="lower right", frameon=False)
    _tidy(ax, "Epoch", "Accuracy (%)")


@overload
def raster(
    spikes: ArrayLike | dict[str, ArrayLike],
    *,
    dt: float = 1.0,
    scores: ArrayLike | None = None,
    target: int | None = None,
    ax: None = None,
) -> Figure: ...
@overload
def raster(
    spikes: ArrayLike | dict[str, ArrayLike],
    *,
    dt: float = 1.0,
    scores: ArrayLike | None = None,
    target: int | None = None,
    ax: Panels,
) -> None: ...
def raster(
    spikes: ArrayLike | dict[str, ArrayLike],
    *,
    dt: float = 1.0,
    scores: ArrayLike | None = None,
    target: int | None = None,
    ax: Panels | None = None,
) -> Figure | None:
    """Spikes [T, n] in steps of `dt` ms, then class scores [T, C] over time.

    `spikes` are those of one layer, or of several by name, which are drawn under one another;
    any value but 0 is a spike. The scores of class `target` stand out from the others.

    >>> z = jax.random.bernoulli(jax.random.key(0), 0.1, (200, 30))
    >>> nj.plotting.raster(z, dt=0.5).savefig(os.devnull)

    Raises `ValueError` without a layer, for arrays of other shapes or lengths than these, or
    for a target that is no class.
    """
    dt, layers = step_size(dt), _layers(spikes)
    n_steps = len(next(iter(layers.values())))
    curves = None if scores is None else _table("scores", scores, "[T, C]")
    _refuse_misfits(layers, curves, n_steps, target)
    panels = len(layers) + (curves is not None)
    figure, axes = _panels(ax, panels, 1, (4.8, 0.5 + 1.5 * panels), sharex=True)
    for ax, (name, z) in zip(axes, layers.items(), strict=False):
        _draw_spikes(ax, name, z, dt)
    if curves is not None:
        _draw_scores(axes[-1], curves, target, dt)
    for panel in axes:
        panel.set_xlim(0, (n_steps + 0.5) * dt)
        panel.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    axes[-1].set_xlabel("Time (ms)")
    if figure is not None:
        figure.align_ylabels()
    return figure


@overload
def weights(matrices: dict[str, ArrayLike], *, ax: None = None) -> Figure: ...
@overload
def weights(matrices: dict[str, ArrayLike], *, ax: Panels) -> None: ...
def weights(matrices: dict[str, ArrayLike], *, ax: Panels | None = None) -> Figure | None:
    """One picture a projection of its matrix [n_post, n_pre], nA; where it is 0, no synapse.

    The scale is symmetric about a white 0 and ends at the 99th percentile of |w|, as a few
    large weights would leave the rest pale.

    >>> figure = nj.plotting.weights({"input->h1": np.eye(10, 20)})

    Raises `ValueError` without a matrix or for one that is empty, not finite or not 2-D.
    """
    tables = {
        name: _table(f"matrices[{name!r}]", w, "[n_post, n_pre]") for name, w in matrices.items()
    }
    if not tables:
        raise ValueError("matrices must hold at least one projection; got {}")
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure, axes = _panels(ax, len(tables), columns, (2.9 * columns, 2.7 * rows))
    for panel, (name, w) in zip(axes, tables.items(), strict=True):
        _draw_matrix(panel, name, w)
    return figure


@overload
def voltage(
    v: ArrayLike, z: ArrayLike, v_th: ArrayLike, *, dt: float = 1.0, ax: None = None
) -> Figure: ...
@overload
def voltage(
    v: ArrayLike, z: ArrayLike, v_th: ArrayLike, *, dt: float = 1.0, ax: Panels
) -> None: ...
def voltage(
    v: ArrayLike, z: ArrayLike, v_th: ArrayLike, *, dt: float = 1.0, ax: Panels | None = None
) -> Figure | None:
    """Potential `v` [T] of one neuron in mV, its spikes `z` [T], its threshold, one or [T].

    Steps are `dt` ms long. Spikes are lines above the threshold, since a point neuron has none
    of its own.

    >>> v, z = jnp.array([0.4, 0.8, 1.1, 0.3]), jnp.array([0, 0, 1, 0])
    >>> figure = nj.plotting.voltage(v, z, v_th=1.0, dt=0.5)

    Raises `ValueError` for an empty `v`, for shapes other than these, and for what is not finite.
    """
    dt = step_size(dt)
    v, z, v_th = _numbers("v", v), _numbers("z", z), _numbers("v_th", v_th)
    if v.ndim != 1 or not v.size:
        raise ValueError(f"v must have shape [T], T >= 1; got shape {v.shape}")
    if z.shape != v.shape or v_th.shape not in ((), v.shape):
        allowed = f"z must have shape {v.shape}, v_th that or ()"
        raise ValueError(f"{allowed}; got {z.shape} and {v_th.shape}")
    figure, (axes,) = _panels(ax, 1, 1, (4.8, 2.4))
    _draw_voltage(axes, v, z, v_th, dt)
    return figure


def _draw_voltage(ax: Axes, v: np.ndarray, z: np.ndarray, v_th: np.ndarray, dt: float) -> None:
    time, line = dt * np.arange(1, len(v) + 1), np.broadcast_to(v_th, v.shape)
    fired = z > 0
    tip = np.maximum(v.max(), line.max()) + 0.4 * max(np.ptp(np.append(v, line)), 1e-9)
    ax.plot(time, v, color=_BLUE, linewidth=1.2, label="potential")
    ax.plot(time, line, color=_ORANGE, linestyle="--", linewidth=1, label="threshold")
    ax.vlines(time[fired], line[fired], tip, color=_BLACK, linewidth=1.2, label="spike")
    ax.set_xlim(0, time[-1])
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=3, frameon=False)
    _tidy(ax, "Time (ms)", "Potential (mV)")


def _draw_spikes(ax: Axes, name: str, z: np.ndarray, dt: float) -> None:
    step, neuron = np.nonzero(z)
    ax.scatter((step + 1) * dt, neuron, s=3, color=_BLACK, linewidths=0)
    ax.set_ylim(-0.5, z.shape[1] - 0.5)
    _title(ax, f"{name}: {np.mean(z != 0):.3f} spikes per neuron and step".removeprefix(": "))
    ax.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    _tidy(ax, None, "Neuron")


def _draw_scores(ax: Axes, scores: np.ndarray, target: int | None, dt: float) -> None:
    time = dt * np.arange(1, len(scores) + 1)
    for c in range(scores.shape[1]):
        ax.plot(time, scores[:, c], color=_GREY, linewidth=0.9, label=f"class {c}", zorder=2)
    if target is not None:
        ax.lines[target].set(color=_ORANGE, linewidth=2, zorder=3)
    _title(ax, "readout" if target is None else f"readout: the target is class {target}")
    _tidy(ax, None, "Score")


def _draw_matrix(ax: Axes, name: str, w: np.ndarray) -> None:
    synapses = w[w != 0]
    limit = float(np.percentile(np.abs(synapses), 99)) if synapses.size else 1.0
    image = ax.imshow(
        w, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto",
        interpolation="auto" if min(w.shape) > 100 else "nearest",  # else it blurs a few rows
    )  # fmt: skip
    extend = "both" if np.abs(w).max() > limit else "neither"
    ax.figure.colorbar(image, ax=ax, extend=extend, label="Weight")
    _title(ax, f"{name.replace('->', ' → ')}: {100 * synapses.size / w.size:.3g}% non-zero")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    ax.set(xlabel="Presynaptic neuron", ylabel="Postsynaptic neuron")


def _refuse_misfits(
    layers: dict[str, np.ndarray], scores: np.ndarray | None, n_steps: int, target: int | None
) -> None:
    timed = layers if scores is None else layers | {"scores": scores}
    for name, x in timed.items():
        if len(x) != n_steps:
            raise ValueError(f"{name} must have {n_steps} steps, like the others; got {len(x)}")
    if target is None:
        return
    if scores is None:
        raise ValueError(f"target needs scores to stand out from; got target {target} alone")
    if not 0 <= target < scores.shape[1]:
        raise ValueError(f"target must be in [0, {scores.shape[1]}); got {target}")


def _layers(spikes: Any) -> dict[str, np.ndarray]:
    """The raster of each layer, by name; one alone needs none."""
    if not isinstance(spikes, dict):
        return {"": _table("spikes", spikes, "[T, n]")}
    if not spikes:
        raise ValueError("spikes must hold at least one layer; got {}")
    return {name: _table(f"spikes[{name!r}]", x, "[T, n]") for name, x in spikes.items()}


def _table(name: str, x: Any, shape: str) -> np.ndarray:
    table = _numbers(name, x)
    if table.ndim != 2 or not table.size:
        raise ValueError(f"{name} must have shape {shape} without a 0; got shape {table.shape}")
    return table


def _numbers(name: str, x: Any) -> np.ndarray:
    """`x` as floats, refused unless they are finite."""
    try:
        numbers = np.asarray(x, float)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be an array of numbers; got {x!r:.80}") from None
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be finite; got {numbers[~np.isfinite(numbers)][0]}")
    return numbers


def _percent(name: str, x: Sequence[float]) -> np.ndarray:
    values = np.asarray(x, float)
    bad = ~((values >= 0) & (values <= 100))
    if values.ndim != 1 or not values.size:
        raise ValueError(f"{name} must hold one number an epoch; got shape {values.shape}")
    if bad.any():
        raise ValueError(f"{name} must lie in [0, 100] percent; got {values[bad][0]}")
    return values


def _panels(
    ax: Panels | None, n: int, columns: int, size: tuple[float, float], **options: Any
) -> tuple[Figure | None, list[Axes]]:
    """A new figure of `size` inches with n panels, or none and those that were given."""
    if ax is None:
        figure = _Picture(figsize=size, dpi=_DPI, layout="constrained")
        grid = figure.subplots(-(-n // columns), columns, squeeze=False, **options).ravel()
        for spare in grid[n:]:
            spare.remove()
        return figure, list(grid[:n])
    given = np.ravel(np.asarray(ax, object)).tolist()
    if len(given) != n or not all(isinstance(x, Axes) for x in given):
        got = ", ".join(type(x).__name__ for x in given)
        raise ValueError(f"ax must be {n} Axes of matplotlib, one a panel; got {got}")
    return None, given


def _title(ax: Axes, text: str) -> None:
    ax.set_title(text, loc="left", fontsize="medium")


def _tidy(ax: Axes, x: str | None, y: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_ylabel(y)
    if x:
        ax.set_xlabel(x)


def __dir__() -> list[str]:
    return __all__
