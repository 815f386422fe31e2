"""What a network would take on a cluster, on paper: from what one machine was measured to take.

    python -m benchmarks.cluster                       # 10^9 neurons, 1,000 synapses each
    python -m benchmarks.cluster --neurons 1e8 --fan-in 10000 --hosts 16 64 256

Neurons are divided as `nj.sharding.place` divides them: each host has the synapses onto its own
neurons, and hears a bit of every neuron.
"""

import argparse
import math
from typing import Any, NamedTuple

NEURON = 90.0  # B of state and parameters, measured (docs/scaling.md, 10^6 neurons)
EVENT, STEP = 4.7e-9, 1.5e-9  # s of one core: a spike at a synapse of 10^8; a neuron's step
HEAR = 2.4e-9  # s of one core: a bit of a neuron's read, and whether it fired looked at, of 10^7
KINDS = ("plain", "stdp")


class Hosts(NamedTuple):
    """Machines of one kind.

    Fields:
        number: how many
        cores: of each, that add up
        link: B/s, into each
        latency: s, of one message
    """

    number: int
    cores: int = 64
    link: float = 12.5e9
    latency: float = 10e-6


class Taken(NamedTuple):
    """What each host holds and does.

    Fields:
        synapses: B, of its event list and weights
        neurons: B, of its own neurons
        heard: B, that grow with all neurons: where a sender's synapses begin, who fired
        received: B a step, of spikes as bits
        gather: s a step, of spikes on their way
        hear: s a step, of going through the spikes of all
        compute: s a step, of neurons and of synapses that hear a spike
    """

    synapses: float
    neurons: float
    heard: float
    received: float
    gather: float
    hear: float
    compute: float

    @property
    def memory(self) -> float:
        """B in all."""
        return self.synapses + self.neurons + self.heard

    @property
    def step(self) -> float:
        """s a step in all."""
        return self.gather + self.hear + self.compute


def taken(
    n: float, fan_in: float, hosts: Hosts, *, kind: str = "plain", rate: float = 10.0,
    dt: float = 0.1, delay: int = 15,
) -> Taken:  # fmt: skip
    """Of `n` neurons that hear `fan_in` others each and fire at `rate`, Hz, in steps of `dt`, ms.

        synapses = n fan_in / N (receiver + 4 [+ sender and place]) B
        heard = n (4 + 4 + delay / 8) B
        received = n (1 - 1/N) / 8 B a step
        gather = received / link + ceil(log2 N) latency / delay

    Weights are float32; a number takes the bytes that name it (`FanOut`), sender and place one
    word where its bits are enough. Spikes are gathered once in as many steps as the smallest
    `delay`; cores share all work.
    Raises `ValueError` for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
    own, edges = n / hosts.number, n * fan_in / hosts.number
    each = _bytes(own) + 4
    if kind == "stdp":
        longest = fan_in / hosts.number  # of a sender's synapses on a host, which vary by chance
        longest += 7 * math.sqrt(longest) + 10
        apart = _bytes(n) + (1 if longest <= 256 else 2)
        one_word = math.ceil(math.log2(n)) + math.ceil(math.log2(longest)) <= 32
        each += min(apart, 4) if one_word else apart
    received = n * (1 - 1 / hosts.number) / 8
    messages = math.ceil(math.log2(hosts.number)) / max(delay, 1)
    arriving = edges * rate * dt / 1000
    return Taken(
        edges * each, own * NEURON, n * (4 + 4 + delay / 8), received,
        received / hosts.link + messages * hosts.latency, n * HEAR / hosts.cores,
        (arriving * EVENT + own * STEP) / hosts.cores,
    )  # fmt: skip


def fewest(n: float, fan_in: float, memory: float, **options: Any) -> int | None:
    """Of the powers of two, hosts of so much `memory`, B, that hold it; None where none do.

    A list of one host has less than 2^31 synapses, which int32 counts.
    """
    for hosts in (2**i for i in range(20)):
        fits = taken(n, fan_in, Hosts(hosts), **options).memory <= memory
        if fits and n * fan_in / hosts < 2**31:
            return hosts
    return None


def _bytes(n: float) -> int:
    """Of a number that names one of `n`."""
    return 2 if n <= 1 << 16 else 3 if n <= 1 << 24 else 4


def line(n: float, fan_in: float, hosts: int, kind: str) -> str:
    """A row of the table."""
    x = taken(n, fan_in, Hosts(hosts), kind=kind)
    return (
        f"| {hosts:,} | {x.synapses / 1e9:.1f} | {x.neurons / 1e9:.2f} | {x.heard / 1e9:.1f} |"
        f" {x.memory / 1e9:.1f} | {x.received / 1e6:.0f} | {1e3 * x.gather:.1f} |"
        f" {1e3 * x.hear:.1f} | {1e3 * x.compute:.2f} | {x.step * 1e4:,.0f} |"
    )


def main() -> None:
    """Print the table."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--neurons", type=float, default=1e9)
    asked.add_argument("--fan-in", type=float, default=1000)
    asked.add_argument("--hosts", type=int, nargs="+", default=[512, 1024, 4096, 16384])
    asked.add_argument("--kind", choices=KINDS, default="plain")
    given = asked.parse_args()
    print(  # noqa: T201
        "| hosts | synapses, GB | neurons, GB | heard, GB | in all, GB | received a step, MB |"
        " gather, ms | hear, ms | compute, ms | s a biological second |\n" + "|---" * 10 + "|"
    )
    for hosts in given.hosts:
        print(line(given.neurons, given.fan_in, hosts, given.kind))  # noqa: T201


if __name__ == "__main__":
    main()
