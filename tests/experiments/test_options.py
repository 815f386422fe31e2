"""Every option of the main experiment arrives at the one place that it is for."""

from dataclasses import fields, replace
from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _config, _devices, _run, _training
from experiments import wta_broadcast as wta
from experiments._options import part
from neurojax import data
from neurojax.learning import wta_broadcast as wb

# No two alike, none a default.
LEAKY = dict(
    hidden=(26, 21), tau_mem=7.5, r_mem=2.25, t_ref=3.0, reset="subtract", recurrence="local",
    radius=5, p_rewire=0.3, gain_in=1.25, gain_forward=1.75, gain_recurrent=0.625,
    readout_density=0.375, readout_population=4, tau_out=6.25, winners=9, teacher="soft",
    gain=13.0, margin=0.0625, bandwidth=2, modulators=3, window="triangle", window_width=0.875,
    kappa_e=0.8125, trace_decay=0.6875, reset_trace=False, target_rate=0.15625,
    homeostasis=0.4375, rate_penalty=0.34375, n_steps=17, start=6,
)  # fmt: skip
SPIKING = dict(
    hidden=(22,), neuron="alif", beta_adapt=0.28125, tau_adapt=33.0, tau_mem=8.5, r_mem=1.625,
    recurrence="dense", gain_in=3.5, gain_recurrent=0.78125, readout="spiking",
    readout_density=0.5, readout_population=3, tau_out=5.75, inhibition=2.75, teacher="hard",
    margin=0.1875, window="boxcar", window_width=1.5, freeze_hidden=True, start=-4, n_steps=15,
)  # fmt: skip
OTHER = dict(
    hidden=(32, 32), recurrence="dense", learn_recurrence=False, learn_readout=False,
    window="spike", tau_spread=0.5, readout_density=0.5
)  # fmt: skip


@cache
def making(name):
    """The configuration, and what makes a system of it from a key, for 6 inputs and 3 classes."""
    c = _config.resolved(wta.Config(**{"leaky": LEAKY, "spiking": SPIKING, "other": OTHER}[name]))
    task = _training.task(part(c, _config.Data), (1, 6), 3)
    make = partial(wta.build, part(c, _config.Network), part(c, _config.Learning), task)
    return c, eqx.filter_jit(make)


def built(name):
    c, make = making(name)
    return c, make(jax.random.key(0))


def found(system) -> dict:
    """What the options are called, and what the system has in their places."""
    net = system.network
    h1, p = net.layers["h1"], net.projections
    neuron, rule, out = h1.neuron, h1.rule, net.layers["readout"].neuron
    window = lambda d: float(rule.window(jnp.float32(1 + d), jnp.float32(1), jnp.float32(0)))  # noqa: E731
    got = dict(
        hidden=tuple(net.layers[n].n for n in system.hidden), neuron=type(neuron).__name__.lower(),
        tau_mem=neuron.tau_mem, r_mem=neuron.r_mem, t_ref=neuron.t_ref, reset=neuron.reset,
        winners=h1.winners, gain_in=p["input->h1"].gain, tau_out=out.tau_mem,
        margin=system.teacher.margin, kappa_e=rule.kappa_e, trace_decay=rule.decay,
        reset_trace=rule.reset_trace, target_rate=system.homeostasis.target,
        homeostasis=system.homeostasis.rate, rate_penalty=system.homeostasis.penalty,
        n_steps=system.n_steps, start=system.start,
        bandwidth=system.feedback["h1"].channels.shape[0],
        teacher={"SoftWTA": "soft", "HardWTA": "hard"}[type(system.teacher).__name__],
        readout="leaky" if type(out).__name__ == "LeakyIntegrator" else "spiking",
        window_width=next(d for d in np.arange(1, 64) / 32 if window(d) == 0)
    )  # fmt: skip
    if got["neuron"] == "alif":
        got |= dict(beta_adapt=neuron.beta_adapt, tau_adapt=neuron.tau_adapt)
    if system.modulators is not None:
        got["modulators"] = len(system.modulators.k)
    return {k: float(x) if eqx.is_array(x) else x for k, x in got.items()}


@pytest.mark.slow
def test_options_of_a_network_with_a_leaky_readout():
    c, system = built("leaky")
    got = found(system) | {"gain": float(system.teacher.gain)}
    assert got == {name: getattr(c, name) for name in got}
    p = system.network.projections
    assert p["h1->h2"].gain == 1.75
    far = round(0.3 * 10) / 10  # of ten neighbours
    assert p["h1->h1"].gain == pytest.approx(0.625 * np.sqrt(1 - far))
    assert p["h1->h1 far"].gain == pytest.approx(0.625 * np.sqrt(far))
    assert p["h1->h1"].connectivity.fan_in.sum() == 26 * 7
    assert p["h1->h1 far"].connectivity.fan_in.sum() == 26 * 3
    assert p["h1->readout"].connectivity.count.sum() == 3 * 4 * round(0.375 * 26)
    assert system.network.layers["readout"].n == 3
    heard = 1 / float(system.network.layers["readout"].neuron.r_mem)
    assert heard == pytest.approx(0.375 * 4)
    assert set(system.network.plastic()) == {n for n in p if "far" not in n}
    for name in ("h1", "h2"):
        assert system.network.layers[name].winners == 9
        assert float(system.network.layers[name].neuron.tau_mem) == 7.5
        assert system.feedback[name].channels.shape == (2, 3)


def test_options_of_a_network_with_a_spiking_readout():
    c, system = built("spiking")
    got = found(system)
    boxcar = {"window_width": c.window_width / 2 + 1 / 32, "start": 11}  # half on each side
    expected = {name: getattr(c, name) for name in got} | boxcar
    assert got == pytest.approx(expected | {"bandwidth": 2})  # of three classes all there is
    p = system.network.projections
    assert p["h1->h1"].gain == 0.78125
    assert p["h1->h1"].connectivity.shape == (22, 22)
    assert p["h1->readout"].connectivity.fan_in.tolist() == 9 * [11]
    lateral = p["readout->readout"].w
    np.testing.assert_allclose(lateral.sum(1), -2.75 * 0.5, rtol=1e-6)  # of what is heard
    assert system.network.plastic() == ("h1->readout",)


def test_what_does_not_learn_is_fixed():
    _, system = built("other")
    assert system.network.plastic() == ("h1->h2", "input->h1")
    rule = system.network.layers["h1"].rule
    assert rule.window(jnp.float32(1), jnp.float32(1), jnp.float32(0.5)) == 0.5  # the spike itself


def test_time_constants_are_mixed_as_widely_as_asked():
    _, system = built("other")
    spread = np.log(np.asarray(system.network.layers["h1"].neuron.tau_mem) / 9.5)
    assert np.abs(spread).max() <= 0.5
    assert spread.min() < -0.2 < 0.2 < spread.max()


@pytest.mark.slow
def test_the_parts_of_a_network_draw_apart_and_all_follow_the_key():
    for name in ("leaky", "other"):
        _, make = making(name)
        a, again, b = (make(jax.random.key(i)) for i in (0, 0, 1))
        assert eqx.tree_equal(a, again)
        several = [np.asarray(x).tobytes() for s in (a, b) for x in drawn(s)]
        assert len(set(several)) == len(several)


def drawn(s):
    """What is random in a system."""
    n = s.network
    yield from (b.spread for b in s.feedback.values())
    yield from (n.projections[f"{h}->readout"].connectivity.count for h in s.hidden)
    if s.modulators is None:
        yield from (n.layers[h].neuron.tau_mem for h in s.hidden)
    else:
        yield from (s.modulators.k, *s.modulators.a.values())


# --- options of devices ---


def test_options_of_devices_are_handed_on_each_in_its_place():
    c = wta.Config(
        synapse="querlioz", update="unidirectional", n_states=48, nonlinearity=3.5,
        dynamic_range=7.0, sigma_d2d=0.125, sigma_c2c=0.0625,
    )  # fmt: skip
    assert c.synapses == _devices.Synapses(
        synapse="querlioz", update="unidirectional", n_states=48, nonlinearity=3.5,
        dynamic_range=7.0, sigma_d2d=0.125, sigma_c2c=0.0625,
    )  # fmt: skip
    assert replace(c, sigma_c2c=0.0).synapses.sigma_c2c is None


def test_the_run_makes_its_weights_of_the_devices_asked_for(tmp_path, monkeypatch):
    class Asked(Exception):  # noqa: N818 - no error: it ends a run before it trains
        pass

    def spy(synapses, w_max):
        raise Asked(synapses, w_max)

    monkeypatch.setattr(_devices, "make_weights", spy)
    c = wta.Config(out=tmp_path, synapse="linear", n_states=9, sigma_c2c=0.03125, w_max=0.71875)
    with pytest.raises(Asked) as asked:
        wta.run(c)
    assert asked.value.args == (c.synapses, 0.71875)


# --- options of data ---


def test_labels_are_shuffled_by_the_seed_and_pictures_cut_to_size():
    split = data.Split(np.arange(40.0).reshape(40, 1, 1), np.arange(40))
    cut = _training.lesson(_config.Data(train_size=24), split, batch_size=8, seed=0)
    np.testing.assert_array_equal(cut.images.ravel(), np.arange(24))
    np.testing.assert_array_equal(cut.labels, np.arange(24))
    wrong = [
        _training.lesson(_config.Data(shuffle_labels=True), split, batch_size=8, seed=seed)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(wrong[0].labels, wrong[1].labels)
    assert (wrong[0].labels != wrong[2].labels).any()
    assert (wrong[0].labels != split.labels).mean() > 0.8
    np.testing.assert_array_equal(np.sort(wrong[0].labels), split.labels)
    np.testing.assert_array_equal(wrong[0].images, split.images)


def test_a_picture_gives_inputs_and_steps_by_how_it_is_shown():
    shape = (7, 5, 4, 3)
    assert _training.task(_config.Data(n_steps=13, start=4), shape, 9) == (60, 9, 13, 4)
    rows = _config.Data(presentation="rows", start=-2)
    assert _training.task(rows, shape, 9) == (12, 9, 5, 3)


# --- options without effect ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(teacher="hard", gain=5.0), "--gain 5 needs --teacher soft; got --teacher hard"),
        (dict(beta_adapt=0.2), "--beta-adapt 0.2 needs --neuron alif; got --neuron lif"),
        (dict(tau_adapt=9.0), "--tau-adapt 9 needs --neuron alif"),
        (dict(recurrence="dense", radius=3), "--radius 3 needs --recurrence local; got --rec"),
        (dict(presentation="rows", p_rewire=0.2), "--p-rewire 0.2 needs --recurrence local"),
        (dict(recurrence="none", gain_recurrent=1.0), "--gain-recurrent 1 needs --recurrence loc"),
        (
            dict(recurrence="none", learn_recurrence=False),
            "--no-learn-recurrence needs --recurrence local or dense; got --recurrence none",
        ),
        (dict(inhibition=0.5), "--inhibition 0.5 needs --readout spiking; got --readout leaky"),
        (dict(presentation="rows", n_steps=9), "--n-steps 9 needs --presentation static; got -"),
        (dict(presentation="rows", encoding="latency"), "--encoding latency needs --presentation"),
        (dict(max_rate=99.0), "--max-rate 99 needs --encoding poisson; got --encoding direct"),
        (dict(window="spike", window_width=1.0), "--window-width 1 needs --window triangle or bo"),
        (dict(learn_readout=False, lr_readout=0.1), "--lr-readout 0.1 needs --learn-readout; got"),
        (dict(freeze_hidden=True, lr=0.1), "--lr 0.1 needs --no-freeze-hidden; got --freeze-hid"),
        (dict(freeze_hidden=True, modulators=1), "--modulators 1 needs --no-freeze-hidden"),
        (dict(freeze_hidden=True, learn_readout=False), "--no-learn-readout needs --no-freeze-hid"),
        (dict(hidden=(9,), gain_forward=1.0), "--gain-forward 1 needs two hidden layers; got --h"),
        (dict(w_max=1.5), "--w-max 1.5 needs a --synapse other than ideal; got --synapse ideal"),
        (dict(synapse="linear", nonlinearity=1.0), "--nonlinearity 1 needs --synapse exponential"),
    ],
)
def test_an_option_without_effect_is_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(")):
        wta.run(wta.Config(out=tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({}, wb.deltas),
        ({"feedback": "broadcast"}, wb.deltas),
        ({"feedback": "symmetric"}, wb.symmetric),
        ({"dataset": "idx"}, wb.symmetric),
        ({"dataset": "idx", "feedback": "broadcast"}, wb.deltas),
    ],
)
def test_errors_come_back_as_the_option_says(options, asked):
    c = _config.resolved(wta.Config(**options), n_train=1000)
    parts = part(c, _config.Network), part(c, _config.Learning), _training.task(c, (1, 8, 8), 3)
    made = eqx.filter_eval_shape(partial(wta.fresh, *parts, 10), jax.random.key(0))[0]
    assert made.changes is asked


@pytest.mark.parametrize("idle", [{"bandwidth": 2}, {"redraw_feedback": True}])
def test_random_feedback_that_is_not_there_has_no_options(idle):
    given = wta.Config(feedback="symmetric", **idle)
    with pytest.raises(ValueError, match="needs --feedback broadcast"):
        _config.refuse_idle(given, _config.resolved(given))


def test_a_folder_for_data_that_need_none_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match="needs a --dataset that is not embedded; got --dataset digits"
    ):
        wta.Config(data_dir=tmp_path)


@pytest.mark.parametrize("presentation", ["static", "rows"])
@pytest.mark.parametrize("teacher", ["soft", "hard"])
def test_what_presets_fill_in_is_no_option_without_effect(presentation, teacher):
    given = wta.Config(presentation=presentation, teacher=teacher, window="spike")
    filled = _config.resolved(given)
    assert filled != given  # presets have filled in a width, which spikes as a window do not use
    assert filled.window_width is not None
    assert _config.refuse_idle(filled, _config.resolved(filled)) is None
    odd = replace(filled, window_width=2 * filled.window_width)
    with pytest.raises(ValueError, match="--window-width .* needs --window"):
        _config.refuse_idle(odd, _config.resolved(odd))


def test_every_option_stands_in_one_of_these_tests():
    here = LEAKY | SPIKING | OTHER
    devices = {f.name for f in fields(_config.Devices)}
    # tests/experiments/test_training.py, test_run.py, those of the command line and of event sets
    elsewhere = """batch_size epochs lr lr_readout optimiser weight_decay average augment
        input_dropout presentation encoding max_rate feedback redraw_feedback report_hardware
        inputs dataset data_dir bin_ms shuffle_labels train_size""".split()
    rest = {f.name for f in fields(wta.Config)} - {*here, *devices, *elsewhere}
    assert rest == {f.name for f in fields(_run.Run)}
