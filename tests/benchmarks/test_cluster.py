"""What a cluster would take, against numbers worked out by hand; what dividing costs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import neurojax as nj
from benchmarks import cluster, dividing
from benchmarks.cluster import Hosts, taken


def test_a_thousand_millions_on_1000_hosts_worked_out_by_hand():
    x = taken(1e9, 1000, Hosts(1000, cores=50, link=1e10, latency=2e-5))
    assert x.synapses == 1e9 * 7  # 10^6 neurons of its own: three bytes name them, four weigh
    assert x.neurons == 1e6 * 90
    assert x.heard == pytest.approx(1e9 * 9.875)
    assert x.memory == pytest.approx(16.965e9)
    assert x.received == pytest.approx(124.875e6)
    assert x.gather == pytest.approx(12.4875e-3 + 10 * 2e-5 / 15)
    assert x.hear == pytest.approx(1e9 * 2.4e-9 / 50)
    # 10^9 synapses at 10 Hz in a ten-thousandth of a second: 10^6 events of 4.7 ns
    assert x.compute == pytest.approx((1e6 * 4.7e-9 + 1e6 * 1.5e-9) / 50)
    assert x.step == pytest.approx(x.gather + x.hear + x.compute)


def test_stdp_keeps_sender_and_place_of_each_synapse():
    plain, stdp = (taken(1e9, 1000, Hosts(1000), kind=kind) for kind in cluster.KINDS)
    assert stdp.synapses - plain.synapses == 1e9 * (4 + 1)  # 30 bits leave 2: a word is not enough
    rows = (1, 1e5, 1000, 4), (8, 1e5, 1000, 4), (1, 1e5, 100, 4), (1, 6e4, 100, 3)
    for hosts, n, fan_in, each in (*rows, (1, 1e7, 1000, 5), (4, 4e6, 1000, 4), (1, 4e6, 700, 4)):
        both = (taken(n, fan_in, Hosts(hosts), kind=kind).synapses for kind in cluster.KINDS)
        assert -np.subtract(*both) == n * fan_in / hosts * each
    assert stdp._replace(synapses=plain.synapses) == plain
    with pytest.raises(ValueError, match="kind must be one of plain, stdp; got 'dense'"):
        taken(1e6, 1000, Hosts(1), kind="dense")


def test_one_host_hears_nothing_from_others_and_more_share_all_but_what_they_hear():
    one, two = taken(1e6, 100, Hosts(1)), taken(1e6, 100, Hosts(2))
    assert (one.received, one.gather) == (0.0, 0.0)
    assert (two.synapses, two.neurons) == (one.synapses / 2, one.neurons / 2)
    assert two.heard == one.heard
    assert two.compute == pytest.approx(one.compute / 2)


def test_hosts_are_as_many_as_memory_and_the_count_of_synapses_ask_for():
    assert cluster.fewest(1e6, 1000, 8e9) == 1
    assert cluster.fewest(1e9, 1000, 1e15) == 512  # 2^31 synapses a host at most
    assert cluster.fewest(1e9, 1000, 20e9) == 1024
    assert cluster.fewest(1e9, 1000, 9.8e9) is None  # what every host hears is more


@pytest.mark.parametrize("kind", cluster.KINDS)
def test_on_one_host_it_is_what_a_network_holds(kind):
    n, fan_in = 1000, 300
    wiring = nj.as_fan_out(nj.fan_in(jax.random.key(0), n, n, fan_in / n))
    wiring = wiring.with_columns() if kind == "stdp" else wiring
    assert int(wiring.fan_out.max()) > 256  # a place takes two bytes
    starts = 4 * (n + 1) * (2 if kind == "stdp" else 1)  # of columns too
    weights = 4 * wiring.n_synapses
    assert nj.nbytes(wiring) + weights - starts == taken(n, fan_in, Hosts(1), kind=kind).synapses


def test_a_step_grows_with_rate_and_length_and_its_message_with_a_shorter_delay():
    options = dict(n=1e6, fan_in=100, hosts=Hosts(4))
    x = taken(**options)
    more = taken(**options, rate=20.0)
    assert more._replace(compute=x.compute) == x
    assert more.compute - x.compute == pytest.approx(2.5e7 * 10 * 1e-4 * cluster.EVENT / 64)
    assert taken(**options, rate=5.0, dt=0.2) == x
    late, at_once = taken(**options, delay=2), taken(**options, delay=1)
    assert at_once.gather - late.gather == pytest.approx(2 * 10e-6 / 2)
    assert x.heard - late.heard == pytest.approx(1e6 * 13 / 8)
    assert taken(**options, delay=0).gather == at_once.gather


def test_a_row_has_the_units_of_its_head():
    x = taken(1e9, 1000, Hosts(1000))
    cells = [
        float(c.replace(",", "")) for c in cluster.line(1e9, 1000, 1000, "plain").split("|")[1:-1]
    ]
    assert cells == pytest.approx(
        [1000, x.synapses / 1e9, x.neurons / 1e9, x.heard / 1e9, x.memory / 1e9, x.received / 1e6,
         x.gather * 1e3, x.hear * 1e3, x.compute * 1e3, x.step * 1e4], rel=0.05,
    )  # fmt: skip


@pytest.mark.parametrize("late", [0.0, 0.02])
def test_both_kinds_take_turns_and_the_ratio_is_that_of_turns(late, monkeypatch):
    now, turns = [0.0], []

    def kind(name, seconds):
        def run():
            turns.append(name)
            now[0] += seconds + (late if len(turns) > 6 else 0.0)  # the machine slows down
            return jnp.ones(3)

        return run

    monkeypatch.setattr(dividing.time, "perf_counter", lambda: now[0])
    found = dividing.row("x", (kind("one", 0.01), kind("two", 0.015), 100), 3)
    assert turns == ["one", "two"] * 4  # the first of each compiles
    assert found["ratio"] == pytest.approx(1.5)
    assert (found["one"], found["two"]) == pytest.approx((100.0, 150.0))  # us a step
    low = 1.5 if not late else 1 + 0.005 / 0.03  # of the slower turn, as quartiles of three are
    assert (found["quartiles"], found["repeats"]) == ([pytest.approx(low), pytest.approx(1.5)], 3)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        dividing.row("x", (lambda: jnp.ones(3), lambda: jnp.zeros(3), 100), 3)


def test_a_ratio_is_that_of_two_calls_side_by_side(monkeypatch):
    took = iter([1.0, 1.5, 2.0, 3.0, 4.0, 2.0])  # medians of each kind are equal
    monkeypatch.setattr(dividing, "_seconds", lambda run: next(took))
    assert dividing.row("x", (lambda: (), lambda: (), 1), 3)["ratio"] == 1.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [
        lambda: dividing.simulation(2000),
        lambda: dividing.training(dividing.perceptron(), 128, 20),
        lambda: dividing.training(dividing.spiking(), 32, 5),
    ],
)  # fmt: skip
def test_what_is_measured_is_the_same_on_two_devices(make, monkeypatch):
    monkeypatch.setattr(dividing, "STEPS", 300)
    one, two, _ = make()
    for a, b in zip(*(jax.tree.leaves(run()) for run in (one, two)), strict=True):
        if len(a.shape) == 2:
            assert len(b.sharding.device_set) == 2
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), atol=1e-4)
        elif a.ndim == 1 and a.shape == (2000,):
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
