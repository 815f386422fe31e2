"""Figures hold the data they are given, and no figure outlives its caller."""

import io

import jax.numpy as jnp
import matplotlib._pylab_helpers
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from neurojax.analysis import plotting

T, N, C = 20, 12, 4
rng = np.random.default_rng(0)
SPIKES = rng.random((T, N)) < 0.2
SCORES = rng.normal(size=(T, C))
W = rng.normal(size=(6, 8)) * (rng.random((6, 8)) < 0.5)

FIGURES = {
    "learning_curve": lambda: plotting.learning_curve([50.0, 90.0], [60.0, 95.0], 88.5),
    "raster": lambda: plotting.raster({"h1": SPIKES, "h2": SPIKES}, scores=SCORES, target=2),
    "weights": lambda: plotting.weights({"input->h1": W, "h1->h1": W}),
    "voltage": lambda: plotting.voltage(SCORES[:, 0], SPIKES[:, 0], 1.0),
}


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_figures_become_png_and_leave_nothing_behind(make):
    png = io.BytesIO()
    make().savefig(png)
    assert png.getvalue().startswith(b"\x89PNG\r\n")
    assert not matplotlib._pylab_helpers.Gcf.figs  # pyplot keeps every figure it makes here


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_figures_show_themselves_in_a_notebook(make):
    shown, _ = DisplayFormatter().format(make())
    assert shown["image/png"].startswith(b"\x89PNG\r\n")
    assert set(shown) == {"image/png", "text/plain"}  # once


@pytest.mark.usefixtures("untyped")
def test_figures_draw_into_axes_that_they_are_given():
    given = Figure().subplots(2, 3)
    assert plotting.learning_curve([50.0], ax=given[0, 0]) is None
    assert plotting.voltage(SCORES[:, 0], SPIKES[:, 0], 1.0, ax=given[0, 1]) is None
    assert plotting.weights({"a": W}, ax=given[0, 2]) is None
    assert plotting.raster({"a": SPIKES}, dt=0.5, scores=SCORES, ax=given[1, :2]) is None
    assert all(ax.has_data() for ax in given.ravel()[:5])
    assert not given[1, 2].has_data()
    own = plotting.raster({"a": SPIKES}, dt=0.5, scores=SCORES).axes
    for ax, mine in zip(given[1, :2], own, strict=True):
        assert ax.get_title("left") == mine.get_title("left")
        assert ax.get_xlim() == mine.get_xlim()
    for wrong in (given[1], [given[0, 0]], given[0, 0].figure):
        with pytest.raises(ValueError, match="ax must be 2 Axes of matplotlib, one a panel; got"):
            plotting.raster({"a": SPIKES}, scores=SCORES, ax=wrong)


@pytest.mark.parametrize("make", FIGURES.values(), ids=FIGURES)
def test_every_panel_says_what_its_axes_are(make):
    axes = make().axes
    assert all(ax.get_ylabel() for ax in axes)
    assert any(ax.get_xlabel() for ax in axes)


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def test_learning_curve_draws_percent_by_epoch():
    (ax,) = plotting.learning_curve([50.0, 90.0, 95.0], [60.0, 99.0, 100.0], 93.25).axes
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["validation"].get_xydata(), [[1, 50], [2, 90], [3, 95]])
    np.testing.assert_array_equal(drawn["training"].get_ydata(), [60, 99, 100])
    np.testing.assert_array_equal(drawn["test, 93.25%"].get_ydata(), 93.25)
    assert drawn["test, 93.25%"].get_linestyle() == "--"
    assert [text.get_text() for text in ax.get_legend().texts] == list(lines(ax))


def test_learning_curve_draws_nothing_it_was_not_given():
    (ax,) = plotting.learning_curve([50.0]).axes
    assert list(lines(ax)) == ["validation"]


def test_raster_draws_one_dot_a_spike_at_the_end_of_its_step():
    one = np.zeros((T, N))
    one[0, 3] = one[4, 11] = 1.0
    first, second = plotting.raster({"a": one, "b": jnp.asarray(SPIKES)}, dt=0.5).axes
    np.testing.assert_array_equal(first.collections[0].get_offsets(), [[0.5, 3], [2.5, 11]])
    drawn = np.asarray(second.collections[0].get_offsets())
    steps, neurons = np.nonzero(SPIKES)
    np.testing.assert_array_equal(drawn, np.stack([(steps + 1) * 0.5, neurons], axis=1))
    assert first.get_title("left") == f"a: {2 / (T * N):.3f} spikes per neuron and step"
    assert first.get_ylim() == (-0.5, N - 0.5)
    assert first.get_xlim() == second.get_xlim()
    assert second.get_xlim()[1] >= T * 0.5


def test_raster_of_one_layer_needs_no_name():
    (one,), (named,) = plotting.raster(SPIKES).axes, plotting.raster({"h1": SPIKES}).axes
    drawn = [ax.collections[0].get_offsets() for ax in (one, named)]
    np.testing.assert_array_equal(*drawn)
    assert f"h1: {one.get_title('left')}" == named.get_title("left")


def test_raster_makes_the_target_stand_out():
    ax = plotting.raster({"h1": SPIKES}, scores=SCORES, target=2).axes[-1]
    assert len(ax.lines) == C
    for c, line in enumerate(ax.lines):
        np.testing.assert_array_equal(line.get_ydata(), SCORES[:, c])
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, T + 1))
    colours = [to_rgb(line.get_color()) for line in ax.lines]
    assert colours.count(colours[2]) == 1
    assert len(set(colours)) == 2
    assert ax.lines[2].zorder > ax.lines[3].zorder
    assert "class 2" in ax.get_title("left")


def test_raster_of_a_silent_layer_is_empty():
    (ax,) = plotting.raster({"h1": np.zeros((T, N))}).axes
    assert len(ax.collections[0].get_offsets()) == 0


def pictures(figure):
    """The image and the title of each panel; colour bars hold no image."""
    return [(ax.images[0], ax.get_title("left")) for ax in figure.axes if ax.images]


def test_weights_are_drawn_on_a_scale_that_is_symmetric_about_no_synapse():
    ((image, title),) = pictures(plotting.weights({"h1->h2": W}))
    np.testing.assert_array_equal(image.get_array(), W)
    low, high = image.get_clim()
    assert low == -high
    assert high == pytest.approx(np.percentile(np.abs(W[W != 0]), 99))
    assert title == f"h1 → h2: {100 * np.mean(W != 0):.3g}% non-zero"
    none = image.cmap(image.norm(0.0))[:3]
    assert np.ptp(none) < 0.01  # neither red nor blue
    assert image.colorbar is not None


def test_weights_draws_one_panel_a_projection_and_no_empty_one():
    figure = plotting.weights({f"p{i}": W + i for i in range(4)})
    drawn = pictures(figure)
    assert [title.partition(":")[0] for _, title in drawn] == ["p0", "p1", "p2", "p3"]
    assert len(figure.axes) == 8  # each with its colour bar


def test_weights_that_are_all_zero_have_a_scale_too():
    ((image, _),) = pictures(plotting.weights({"h1->readout": np.zeros((3, 5))}))
    assert image.get_clim() == (-1, 1)


def test_voltage_draws_trace_threshold_and_spikes():
    v, z, v_th = np.array([0.2, 1.1, 0.1, 1.3]), np.array([0, 1, 0, 1]), np.array([1, 1, 1.2, 1.2])
    (ax,) = plotting.voltage(v, z, v_th, dt=2.0).axes
    drawn = lines(ax)
    np.testing.assert_array_equal(drawn["potential"].get_xydata(), np.stack([[2, 4, 6, 8], v], 1))
    np.testing.assert_array_equal(drawn["threshold"].get_ydata(), v_th)
    spikes = np.stack(ax.collections[0].get_segments())
    np.testing.assert_array_equal(spikes[:, :, 0], [[4, 4], [8, 8]])
    np.testing.assert_array_equal(spikes[:, 0, 1], [1, 1.2])
    assert (spikes[:, 1, 1] > v.max()).all()


def test_a_figure_takes_what_a_network_records():
    narrow = jnp.asarray(SPIKES, jnp.bfloat16)
    one = plotting.raster({"h1": narrow}).axes[0].collections[0].get_offsets()
    assert len(one) == SPIKES.sum()


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plotting.learning_curve([]), r"val_accuracy must hold one number an epoch"),
        (
            lambda: plotting.learning_curve([0.9, 101.0]),
            r"val_accuracy must lie in \[0, 100\] percent; got 101.0",
        ),
        (
            lambda: plotting.learning_curve([90.0, float("nan")]),
            r"val_accuracy must lie in \[0, 100\] percent; got nan",
        ),
        (
            lambda: plotting.learning_curve([90.0], [90.0, 91.0]),
            r"train_accuracy must have 1 epochs; got 2",
        ),
        (
            lambda: plotting.learning_curve([90.0], None, -1.0),
            r"test_accuracy must lie in \[0, 100\] percent; got -1.0",
        ),
        (lambda: plotting.raster(SPIKES * np.nan), r"spikes must be finite; got nan"),
        (lambda: plotting.raster({"a": [[1], [0, 1]]}), r"spikes\['a'\] must be an array of num"),
        (lambda: plotting.raster(SPIKES, dt=0.0), "dt must be finite and > 0 ms; got 0.0"),
        (
            lambda: plotting.raster(SPIKES[:, 0]),
            r"spikes must have shape \[T, n\] .*got shape \(20",
        ),
        (lambda: plotting.voltage(np.full(5, np.nan), np.zeros(5), 1.0), "v must be finite; got"),
        (lambda: plotting.voltage(np.ones(5), np.ones(5), np.inf), "v_th must be finite; got inf"),
        (lambda: plotting.voltage(np.ones(5), np.ones(5), 1.0, dt=-1), "dt must be finite and > 0"),
        (lambda: plotting.raster({}), r"spikes must hold at least one layer"),
        (
            lambda: plotting.raster({"h1": SPIKES[0]}),
            r"spikes\['h1'\] must have shape \[T, n\] .*; got shape \(12,\)",
        ),
        (
            lambda: plotting.raster({"h1": SPIKES, "h2": SPIKES[1:]}),
            r"h2 must have 20 steps, like the others; got 19",
        ),
        (
            lambda: plotting.raster({"h1": SPIKES}, scores=SCORES[1:]),
            r"scores must have 20 steps, like the others; got 19",
        ),
        (
            lambda: plotting.raster({"h1": SPIKES}, scores=SCORES, target=C),
            r"target must be in \[0, 4\); got 4",
        ),
        (lambda: plotting.raster({"h1": SPIKES}, target=0), r"target needs scores"),
        (lambda: plotting.weights({}), r"matrices must hold at least one projection"),
        (
            lambda: plotting.weights({"p": np.zeros((0, 3))}),
            r"matrices\['p'\] must have shape \[n_post, n_pre\] without a 0; got shape \(0, 3\)",
        ),
        (
            lambda: plotting.weights({"p": np.full((2, 2), np.inf)}),
            r"matrices\['p'\] must be finite",
        ),
        (lambda: plotting.voltage(np.zeros(0), np.zeros(0), 1.0), r"v must have shape \[T\]"),
        (
            lambda: plotting.voltage(np.zeros(5), np.zeros(4), 1.0),
            r"z must have shape \(5,\), v_th that or \(\); got \(4,\) and \(\)",
        ),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_refuses_what_it_cannot_draw(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
