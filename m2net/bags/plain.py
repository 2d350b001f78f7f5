"""Plain values of YAML against the fields of a settings class."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from m2net.errors import ConfigError

_KINDS: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
_WORDS = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word"}


def check_plain(kind: type, values: dict[str, Any], what: str) -> None:
    """Refuse names that ``kind`` (a dataclass) does not have, and values of another type than the field's.

    Raises:
        ConfigError: the first such setting.
    """
    types = {field.name: str(field.type) for field in fields(kind)}
    unknown = sorted(set(values) - set(types))
    if unknown:
        raise ConfigError(f"the {what} has unknown settings {', '.join(unknown)}", expected=f"only {', '.join(types)}")
    for name, value in values.items():
        allowed = _KINDS.get(types[name])
        if allowed and (not isinstance(value, allowed) or (isinstance(value, bool) and types[name] != "bool")):
            raise ConfigError(
                f"{what}.{name} is {value!r}", expected=_WORDS[types[name]], remedy="Mend the YAML; numbers go without quotes"
            )
