"""What modulators are worth: refusals, what the search picks, measures, resume; end to end once."""

import json
import re

import numpy as np
import pytest

from experiments import _gated, _run, modulators
from experiments.modulators import Trial
from neurojax._files import unsealed


@pytest.fixture
def config(tmp_path):
    return lambda **more: modulators.Config(**(
        dict(studies=("writes",), only=("budget", "random"), lr=(0.01, 0.03), seeds=2,
             results=tmp_path / "results", together=5) | more
    ))  # fmt: skip


class Trained:
    """Stands for `_gated.trained`: accuracy and writes by what a lane is asked for."""

    def __init__(self, accuracy=lambda lane: 0.9, writes=lambda lane: 1000):
        self.accuracy, self.writes, self.lanes, self.plans = accuracy, writes, [], []

    def __call__(self, plan, sets, lanes):
        self.lanes.append(len(lanes))
        self.plans.append(plan)
        for lane in lanes:
            right = self.accuracy(lane)
            found = {
                "online": [[0.5, 0.5], [0.7, 0.9]], "val": [0.1, right], "taught": [30, 20],
                "writes": [self.writes(lane) - 400, 400], "joules": 2e-6,
            }  # fmt: skip
            yield found | ({"test": right - 0.05} if plan.test else {})


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ("--only breadth", "--only must be part of the name of a row; got 'breadth'; none, within"),
        ("--hidden", "--hidden"),
        ("--lr 0.01 0.01", "--lr must name each once; got 0.01 0.01"),
        ("--lr 0", r"--lr must be in \(0, inf\); got 0"),
        ("--studies labels labels", "--studies must name each once"),
        ("--n-steps 3", "--n-steps must be a whole number >= 4; got 3"),
        ("--periods 1", "--periods must be a whole number >= 2; got 1"),
        ("--seeds -1", "--seeds must be a whole number >= 0; got -1"),
        ("--show --together 3", "--together 3 needs --no-show"),
        ("--datasets digits --data-dir .", "--data-dir . needs --datasets mnist"),
        ("--synapse gold", "gold"),
    ],
)
def test_refusals(argv, told, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        _run.main(
            modulators.Config, modulators.main, [*argv.split(), "--results", str(tmp_path / "r")]
        )
    assert end.value.code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert re.search(told, said), said
    assert not (tmp_path / "r").exists()


def test_the_search_takes_the_fewest_writes_at_a_third_of_a_point(config, monkeypatch):
    """Of writes; elsewhere the most accurate, and so of the ungated, for comparison, always."""
    lost = {0.01: 0.0, 0.03: 0.002}  # 0.2 points by the rate
    pulses = {0.05: 200, 0.1: 300, 0.2: 400}

    def accuracy(lane):
        budget = float(np.max(lane.setting.budget))
        return {1.0: 0.9, 0.2: 0.9, 0.1: 0.899, 0.05: 0.88}[budget] - lost[lane.lr]

    def writes(lane):
        return 1000 + pulses.get(float(np.max(lane.setting.budget)), 900) - round(1e4 * lane.lr)

    monkeypatch.setattr(_gated, "trained", Trained(accuracy, writes))
    c = config()
    modulators.main(c)
    found = modulators.chosen(c, "digits", "writes")
    picked = {row: (t.value, t.lr) for row, t in found.items()}
    # budget .1 at .03 has fewest of those within .3 points of 90.0, as .05 loses two
    assert picked == {"none": (0.0, 0.01), "budget": (0.1, 0.03), "random": (0.1, 0.03),
                      "change x budget": (0.1, 0.03)}  # fmt: skip
    monkeypatch.setattr(_gated, "trained", Trained(accuracy, writes))
    c = config(studies=("noise",))
    modulators.main(c)
    found = modulators.chosen(c, "digits", "noise")
    assert (found["budget"].value, found["budget"].lr) == (0.2, 0.01)


def test_what_is_there_is_not_run_again_and_others_are_refused(config, monkeypatch, capsys):
    first = Trained()
    monkeypatch.setattr(_gated, "trained", first)
    c = config(only=("budget",))
    modulators.main(c)
    # none, budget x 3, change x budget x 2, at two rates: 12 in fives; then 3 rows of two seeds
    assert first.lanes == [5, 5, 2, 5, 1]
    assert [p.test for p in first.plans] == [False] * 3 + [True] * 2
    assert {p.synapse for p in first.plans} == {"devices"}
    again = Trained()
    monkeypatch.setattr(_gated, "trained", again)
    modulators.main(c)
    assert again.lanes == []
    trial = Trial("digits", "writes", "budget", 0.05, 0.01, 1_000_000)
    place = modulators.place(c, trial)
    assert place.relative_to(c.results).as_posix() == "digits/writes/budget/0.05-0.01-search.json"
    place.unlink()
    modulators.main(c)
    assert again.lanes == [1]
    assert unsealed(place)["row"] == "budget"
    with pytest.raises(ValueError, match="--results must be of these options; got .*pass another"):
        modulators.main(config(only=("budget",), epochs=9))
    other = modulators.place(c, trial._replace(value=0.1))
    other.write_bytes(place.read_bytes())
    with pytest.raises(ValueError, match="is of another training; take it away"):
        modulators.result(c, trial._replace(value=0.1))
    capsys.readouterr()


def test_measures_and_the_table_are_those_of_the_protocol(config, monkeypatch, capsys):
    found = {"online": [[0.0, 1.0], [0.2, 0.4]], "val": [0.5, 0.75], "writes": [1]}
    assert modulators.measure("labels", found) == pytest.approx(40.0)
    assert modulators.measure("classes", found) == pytest.approx(62.5)
    assert modulators.measure("writes", found) == pytest.approx(75.0)
    assert modulators.measure("writes", found | {"test": 0.6}) == pytest.approx(60.0)
    assert modulators.measure("noise", {"lost": "NaN"}) == 0.0
    # windows of 250 samples are five batches of 50; .9 of .8 is back after 3 + 5 batches
    online = [[0.8] * 20, [0.0] * 3 + [0.8] * 17]
    told = {"online": online, "plan": {"batch_size": 50}}
    assert modulators.recovery(told) == 8 * 50
    assert modulators.recovery(told | {"online": [[0.8] * 20, [0.1] * 20]}) == 20 * 50
    monkeypatch.setattr(_gated, "trained", Trained())
    modulators.main(config(only=("random",)))
    said = capsys.readouterr().out
    # 50 samples taught of 4 batches of 50; 1,000 writes; links of 64-256-256-10, 120 pJ a visit
    links = 64 * 256 + 256 * 256 + 10 * 512
    assert "| none | 0 | 0 | 0.01 | 90.00 | 85.00 ± 0.00 | 25.0% | 1e+03 |" in said
    assert f"| 2 | {1e3 * 50 * links * 120e-12:.3g} |" in said
    written = (config().results / "modulators.md").read_text()
    assert written.strip() in said
    assert (config().results / "modulators.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_from_end_to_end_on_the_digits(config, capsys):
    """Two studies, small: gates teach fewer, pulses are counted, and what is there stays."""
    c = config(
        studies=("writes", "labels"), only=("mistakes",), hidden=(24,), n_steps=8, epochs=2,
        periods=2, every=200, batch_size=20, lr=(0.03,), seeds=1, train_size=400, together=32,
    )  # fmt: skip
    modulators.main(c)
    said = capsys.readouterr().out
    assert said.count("### ") == 2
    found = {
        (study, row): modulators.result(c, trial)
        for study in modulators.studies(c)
        for row, trial in modulators.chosen(c, "digits", study).items()
    }
    for study in modulators.studies(c):
        ungated, few = found[study, "none"], found[study, "mistakes"]
        shown = np.size(ungated["online"]) * 20
        assert sum(ungated["taught"]) == shown
        assert 0 < sum(few["taught"]) < shown
        assert all(n > 0 for n in ungated["writes"])
        assert sum(few["writes"]) < sum(ungated["writes"])
        assert np.ravel(ungated["online"])[-5:].mean() > 0.15  # chance is .1
    assert found["writes", "none"]["joules"] > 0
    assert found["labels", "none"]["joules"] == 0
    assert json.loads(json.dumps(found["labels", "none"]["plan"]))["change"] == "labels"
    modulators.main(c)  # nothing is missing
    assert "trainings" not in capsys.readouterr().out


def test_evenly_opens_for_its_part_of_all_samples_whatever_they_are():
    """A binomial share within five standard deviations; the others of a batch do not matter."""
    import jax
    import jax.numpy as jnp

    n, part = 4000, 0.3
    made = _gated.gate(modulators.ROWS["evenly"].setting(part), jax.random.key(0), {"h1": 3})
    known = jnp.arange(n) % 2  # half of them surprise
    scores = jnp.eye(2)[known]
    _, m = made.step(made.init(), scores, jnp.zeros(n, int), key=jax.random.key(1))
    assert m.shape == (n, _gated.M)
    for some in (m, m[::2], m[1::2]):
        share = float((some[:, 0] > 0).mean())
        assert abs(share - part) < 5 * (part * (1 - part) / len(some)) ** 0.5
    assert (m == m[:, :1]).all()  # of a sample all modulators or none
