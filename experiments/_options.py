"""Options as one types them, the parts they fall into, and what each needs to have an effect.

A configuration is flat, as it is typed and written, and inherits its parts; `part` gives one out.
`needs` of a configuration class and of each of its parts lists the options that change something
only beside others: what refuses them is what --help tells.
"""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

_Part = TypeVar("_Part")


def part(config: Any, kind: type[_Part]) -> _Part:
    """The options of one part of a configuration, `kind`, for what needs no others."""
    return kind(**{f.name: getattr(config, f.name) for f in fields(kind)})  # pyright: ignore[reportArgumentType]


class Need(NamedTuple):
    """What options need, or else change nothing.

    Fields:
        names: of the options, with spaces between them
        option: what is asked for it
        text: what it is to be
        met: callable, configuration -> whether it is so
        filled: whether that is known only once presets are filled in
    """

    names: str
    option: str
    text: str
    met: Callable[[Any], Any]
    filled: bool = False

    def of(self, name: str) -> bool:
        """Whether the option is one of these."""
        return name in self.names.split()


def one_of(names: str, option: str, *values: Any, filled: bool = False) -> Need:
    """Options that need another to have one of these values, or, where it lists, to name one."""

    def met(config: Any) -> bool:
        given = getattr(config, option)
        return bool({*values} & {*(given if isinstance(given, tuple) else (given,))})

    return Need(names, option, typed(option, *values), met, filled)


def other_than(names: str, option: str, value: Any, *, filled: bool = False) -> Need:
    """Options that need another to have any value but this."""
    text = f"a --{dashed(option)} other than {shown(value)}"
    return Need(names, option, text, lambda config: getattr(config, option) != value, filled)


def none_of(names: str, option: str, *values: Any, text: str, filled: bool = False) -> Need:
    """Options that have no effect where another has one of these values."""
    return Need(names, option, text, lambda config: getattr(config, option) not in values, filled)


def needs(config: type) -> list[Need]:
    """Of a configuration class and its parts; one's own go before those of its bases."""
    each = [need for part in config.__mro__ for need in vars(part).get("needs", ())]
    own = {}
    for need in each:
        own.setdefault((need.names, need.option), need)
    return [*own.values()]


def refuse_idle(config: Any, found: list[Need], usual: Callable[[str], Any]) -> None:
    """Refuse an option that is not as `usual` and has no effect."""
    for need in found:
        for name in () if need.met(config) else need.names.split():
            value = getattr(config, name)
            if value != usual(name):
                got = typed(need.option, getattr(config, need.option))
                raise ValueError(f"{typed(name, value)} needs {need.text}; got {got}")


def told(config: type, name: str) -> str:
    """What an option needs, as a sentence of its help; nothing if it needs nothing."""
    withheld = getattr(config, "withheld", ())
    found = ", ".join(
        need.text for need in needs(config) if need.of(name) and need.option not in withheld
    )
    return found and f"Needs {found}."


def typed(name: str, *values: Any) -> str:
    """An option as one types it, with one of several values."""
    if isinstance(values[0], bool):
        return f"--{'' if values[0] else 'no-'}{dashed(name)}"
    return f"--{dashed(name)} {' or '.join(shown(x) for x in values)}"


def dashed(name: str) -> str:
    """Field name as an option."""
    return name.replace("_", "-")


def shown(value: Any) -> str:
    """A value as one types it behind its option."""
    if isinstance(value, tuple):
        return " ".join(shown(x) for x in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
