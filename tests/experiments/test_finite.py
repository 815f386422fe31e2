"""A training that is not finite stops where it is seen, and names what is at fault."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import _config, _finite, _perceptron, _run, _training
from experiments import electronic_synapse as study
from experiments import surrogate_reference as reference
from neurojax import data
from neurojax.learning._progress import Progress
from neurojax.learning.wta_broadcast import TrainState

NAMES = ("input->h1", "h1->readout")


def state(**weights):
    """Four batches an epoch count up in `step`."""
    w = {name: jnp.zeros(3) for name in NAMES} | weights
    tone = {"h1": jnp.ones(2)}
    return TrainState(w, (jnp.zeros(()), jnp.zeros(2, int)), tone, (w, tone), jnp.asarray(0),
                      jax.random.key(0))  # fmt: skip


def learner(broken: dict[int, tuple[str, float]]):
    """Steps that count, and put a number into a weight in the batches named."""

    def learn(state, x, y, order, key, ends):
        for _ in range(*ends):
            step = int(state.step) + 1
            state = state._replace(step=jnp.asarray(step))
            if step in broken:
                name, value = broken[step]
                w = state.weights[name].at[1].set(value)
                state = state._replace(weights=state.weights | {name: w})
        return state, {"accuracy": jnp.ones(()), "rate": jnp.ones(())}

    return learn


def trained(broken, start=None, first=0):
    """The epochs that come whole, and what ends them."""
    split, seen = data.Split(np.zeros((8, 2, 2)), np.zeros(8, int)), []
    start = state() if start is None else start
    bar, epochs, key = Progress(5, 4, first), range(first, 5), jax.random.key(0)
    learn = learner(broken)
    states = _training.train(learn, start, split, key, epochs, 2, bar, _finite.lost)
    try:
        seen.extend(epoch for epoch, _ in states)
    except _finite.NotFinite as found:
        return seen, str(found)
    return seen, None


def test_a_finite_training_comes_to_its_end():
    assert trained({3: ("input->h1", 3e38)}) == ([1, 2, 3, 4, 5], None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("batch", [1, 4, 9, 20])
def test_it_stops_at_the_first_epoch_that_is_not_and_names_the_batch(value, batch):
    epoch, within = divmod(batch - 1, 4)
    where = f"in batch {within + 1} of epoch {epoch + 1}"
    said = f"weights h1->readout must stay finite; got NaN or infinity {where}"
    assert trained({batch: ("h1->readout", value)}) == ([*range(1, epoch + 1)], said)


def test_what_was_lost_first_is_named_not_what_follows():
    broken = {5: ("input->h1", np.nan), 6: ("h1->readout", np.nan)}
    said = "weights input->h1 must stay finite; got NaN or infinity in batch 1 of epoch 2"
    assert trained(broken) == ([1], said)


def test_what_is_not_finite_before_is_refused_before():
    seen, said = trained({}, state(**{"input->h1": jnp.array([1.0, jnp.inf])}))
    assert seen == []
    assert said == (
        "weights input->h1, the average must stay finite; got NaN or infinity"
        " before the first batch"
    )


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda s: s._replace(homeostasis={"h1": jnp.array([jnp.nan, 1])}), ["thresholds h1"]),
        (lambda s: s._replace(opt_state=jnp.array(jnp.inf)), ["the optimiser"]),
        (lambda s: s._replace(average=jnp.array(jnp.inf, jnp.bfloat16)), ["the average"]),
        (lambda s: s._replace(step=jnp.asarray(2**31 - 1)), []),
    ],
)
def test_all_of_a_state_is_looked_at(change, lost):
    assert _finite.lost(change(state())) == lost


# --- whose fault ---

HIDDEN, READOUT, THRESHOLDS = ["weights input->h1"], ["weights h1->readout"], ["thresholds h1"]


@pytest.mark.parametrize(
    ("options", "parts", "cure"),
    [
        (dict(lr=1e30), READOUT, "a smaller --lr than 1e+30"),
        (dict(lr_readout=1e30), HIDDEN, "a smaller --lr-readout than 1e+30"),
        (dict(lr=1e9, gain=1e30), HIDDEN, "a smaller --gain than 1e+30"),
        (dict(gain_in=1e20), HIDDEN, "a smaller --gain-in than 1e+20"),
        (dict(weight_decay=1e6), HIDDEN, "a smaller --weight-decay than 1e+06"),  # 0 by default
        (dict(window_width=1e-30), HIDDEN, "a larger --window-width than 1e-30"),
        (dict(neuron="alif", beta_adapt=1e30), HIDDEN, "a smaller --beta-adapt than 1e+30"),
        (dict(lr=0.0, lr_readout=1e9), HIDDEN, "a smaller --lr-readout than 1e+09"),
        (dict(lr=2e-2), HIDDEN, "a smaller --lr than 0.02"),
        (dict(), HIDDEN, "a smaller --lr than 0.004"),
        (dict(), READOUT, "a smaller --lr-readout than 0.005"),
        (dict(), [*READOUT, "the optimiser"], "a smaller --lr-readout than 0.005"),
        (dict(), [*HIDDEN, *READOUT], "a smaller --lr than 0.004"),
        (dict(), THRESHOLDS, "a smaller --homeostasis than 0.5"),
        (dict(dataset="mnist", weight_decay=0.1), HIDDEN, "a smaller --lr than 0.004"),
    ],
)
def test_the_option_furthest_from_usual_is_named_or_the_rate_of_what_was_lost(options, parts, cure):
    with pytest.raises(_finite.NotFinite) as error, _finite.blamed(
        _config.resolved(_config.Config(**options))
    ):  # fmt: skip
        raise _finite.NotFinite(parts, "in batch 1 of epoch 1")
    assert str(error.value).partition("; pass ")[2] == cure


def test_the_reference_has_options_of_its_own():
    c = _config.resolved(reference.Config(slope=1e30))
    with pytest.raises(_finite.NotFinite, match=r"pass a smaller --slope than 1e\+30"):
        with _finite.blamed(c):
            raise _finite.NotFinite(HIDDEN, "")


def test_a_long_list_is_cut_short():
    assert str(_finite.NotFinite([*"abcde"], "now")).startswith("a, b, c and 2 more must stay")


# --- devices ---


def test_the_study_of_devices_stops_and_keeps_what_is_whole(tmp_path, monkeypatch, capsys):
    made = lambda ok: _perceptron.Outcome(0.5 if ok else np.nan, 0.5, 0.0, 0.0, 0.0, 0.0)  # noqa: E731

    def side_by_side(program, n_out, epochs, batch_size, data, settings, width):
        yield [made(program.policy == "none" or s.lr < 1) for s in settings]

    monkeypatch.setattr(study, "side_by_side", side_by_side)
    argv = "--dataset digits --responses linear --policies one-side --lr 0.5 2 4 --out".split()
    with pytest.raises(SystemExit) as end:
        _run.main(study.Config, study.run, [*argv, str(tmp_path)])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: 'search linear one-side' must stay finite; got NaN or infinity in a training at"
        " --lr 2; pass a smaller --lr\n"
    )
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["search-ideal-none.json"]
    assert json.loads((tmp_path / "parts" / "search-ideal-none.json").read_text())
    assert not (tmp_path / "metrics.json").exists()
