"""YAML files of settings, read without what YAML itself passes over in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from m2net.errors import ConfigError


class _OnceLoader(yaml.SafeLoader):  # type: ignore[misc]
    """PyYAML keeps the last of two values with one name, and drops the first as a whole."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode | None:
        node = super().compose_mapping_node(anchor)
        names = [key.value for key, _ in node.value] if node is not None else []
        for name in names:
            if isinstance(name, str) and name != "<<" and names.count(name) > 1:
                raise ConfigError(
                    f"{self.name}: {name} stands {names.count(name)} times in one place", expected="once",
                    remedy="Put the settings of both below one of them",
                )  # fmt: skip
        return node


def check_yaml(path: Path) -> None:
    """Refuse a YAML file that would not be read as it stands there.

    Raises:
        ConfigError: no UTF-8, no YAML, or two values with one name in one place.
    """
    _read(path, lambda loader: loader.get_single_node())


def read_yaml(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        ConfigError: as ``check_yaml``, or a value that cannot be, as a date.
    """
    return _read(path, lambda loader: loader.get_single_data())


def _read(path: Path, take: Callable[[_OnceLoader], Any]) -> Any:
    try:
        loader = _OnceLoader(path.read_text(encoding="utf-8-sig"))
        loader.name = str(path)
        return take(loader)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 ({error})", expected="a text in UTF-8", remedy="Save it so in the editor") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path} is no YAML ({' '.join(str(error).split())[:160]})", expected="a YAML file") from error
