"""A configuration is the sum of its parts, and what needs a part is handed no more."""

import importlib
import inspect
from dataclasses import fields
from typing import get_type_hints

import pytest

from experiments import _command, _run
from experiments import surrogate_reference as reference
from experiments._options import part

EXPERIMENTS = (
    "wta_broadcast", "surrogate_reference", "routing_cost", "transfer", "electronic_synapse",
    "networks",
)  # fmt: skip
# What parses, fills in, refuses or writes all options, and what names the one at fault.
OF_THE_WHOLE = {
    "_config": {"resolved", "refuse_idle", "_check"},
    "wta_broadcast": {"run", "_run_in"},
    "surrogate_reference": {"run"},
    "routing_cost": {"run", "_check"},
    "transfer": {"run", "_made"},
    "electronic_synapse": {"run", "_run_in", "_check"},
    "_finite": {"blamed", "_cure", "_factors"},
    "_training": set(), "_on_chips": set(), "_devices": set(),
}  # fmt: skip


def named(module):
    return importlib.import_module(f"experiments.{module}")


def whole(kind) -> bool:
    """Whether a class is a configuration: it has the options of a run, and others."""
    made = inspect.isclass(kind) and issubclass(kind, _run.Run)
    return made and kind.__name__ == "Config"


@pytest.mark.parametrize("name", [n for n in EXPERIMENTS if n != "surrogate_reference"])
def test_every_option_is_in_one_part_and_all_parts_make_the_whole(name):
    c = named(name).Config(seed=3)
    parts = [part(c, kind) for kind in type(c).__bases__]
    assert [type(x) for x in parts] == list(type(c).__bases__)
    given = [(f.name, getattr(x, f.name)) for x in parts for f in fields(x)]
    assert len(given) == len(dict(given)) == len(fields(c))
    assert type(c)(**dict(given)) == c
    assert len({hash(x) for x in parts}) == len(parts)  # as what is compiled for them goes by it


def test_a_part_has_the_values_of_the_whole_not_its_own_defaults():
    c = reference.Config(slope=3.0)
    assert c.gain == part(c, reference.Learning).gain == 10.0
    assert part(c, reference.Learning).slope == 3.0
    assert part(c, reference._config.Learning).weight_decay == 0.0


@pytest.mark.parametrize("name", OF_THE_WHOLE)
def test_what_needs_a_part_is_handed_that_part_alone(name):
    module = named(name)
    own = [f for f in vars(module).values() if inspect.isfunction(f)]
    own = [f for f in own if f.__module__ == module.__name__]
    took = {f.__name__ for f in own if any(whole(x) for x in get_type_hints(f).values())}
    assert took == OF_THE_WHOLE[name]


# Refused by hand: seeds by how many there are, layers as a list, what goes by the network.
BY_HAND = {"seed", "seeds", "hidden", "scale", "seconds"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_number_has_a_range_in_its_own_part(name):
    config, ranged = named(name).Config, set()
    for kind in config.__mro__[:-1]:
        mine = {*vars(kind).get("whole", {}), *vars(kind).get("within", {})}
        assert mine <= set(inspect.get_annotations(kind))
        ranged |= mine
    typed = {k: _command._metavar(_command._given(x)) for k, x in get_type_hints(config).items()
             if k in {f.name for f in fields(config)}}  # fmt: skip
    numbers = {name for name, kind in typed.items() if kind and kind.startswith(("INT", "FLOAT"))}
    assert ranged - BY_HAND == numbers - BY_HAND
    for kind in config.__mro__[:-1]:
        for name, (low, _) in vars(kind).get("whole", {}).items():
            with pytest.raises(ValueError, match=rf"--{_run.dashed(name)} must .*; got"):
                _run.require_ranges(instead(config, name, low - 1))
        for name in vars(kind).get("within", {}):
            with pytest.raises(ValueError, match=rf"--{_run.dashed(name)} must be in .*; got -1"):
                _run.require_ranges(instead(config, name, -1.0))


def instead(config, name, value):
    """Defaults, but for one number, which nobody has looked at."""
    c = object.__new__(config)
    for f in fields(config):
        listed = (value,) if isinstance(f.default, tuple) else value
        given = listed if f.name == name else f.default
        object.__setattr__(c, f.name, given)
    return c
