"""Parts by name: YAML names a part and gives its plain arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any, TypeVar

from m2net.errors import ConfigError

T = TypeVar("T")


def build(registry: Mapping[str, Callable[..., T]], spec: Mapping[str, Any] | None, what: str, *args: Any, **given: Any) -> T:
    """Build the part that ``spec`` names.

    Args:
        registry: parts by name.
        spec: ``{"name": ..., **arguments}`` of plain values.
        what: the part's role, for messages.
        args: positional arguments that the caller supplies.
        given: keyword arguments that the caller supplies.

    Raises:
        ConfigError: unknown name or argument.
    """
    if not spec or "name" not in spec:
        raise ConfigError(f"the {what} has no name", expected=f"name: one of {', '.join(sorted(registry))}")
    arguments = {k: v for k, v in spec.items() if k != "name"}
    maker = registry.get(spec["name"])
    if maker is None:
        raise ConfigError(f"the {what} {spec['name']!r} is unknown", expected=f"one of {', '.join(sorted(registry))}")
    try:
        signature(maker).bind(*args, **given, **arguments)
    except TypeError as error:
        known = [n for n in signature(maker).parameters if n not in given]
        raise ConfigError(f"the {what} {spec['name']}: {error}", expected=f"arguments among {', '.join(known[len(args) :])}") from error
    try:
        return maker(*args, **given, **arguments)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:  # torch asserts some of its arguments
        raise ConfigError(f"the {what} {spec['name']} cannot be built from {arguments}: {error}") from error
