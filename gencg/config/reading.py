"""Settings from files: TOML of the user, and the config.json of earlier versions."""

import json
import tomllib
from pathlib import Path
from typing import Any

from gencg.systems.structure import CIF_SUFFIXES

_ALIASES = {"cvs": "n_cvs", "samples": "n_samples", "format": "formats", "define": "defines"}


def read_toml(path: str | Path) -> dict[str, Any]:
    """Settings of a TOML file; dashes in names count as underscores.

    Raises:
        ValueError: If the file is missing or is not TOML.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"`config` file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`config` file {path} is not TOML: {error}") from None
    return {_ALIASES.get(k.replace("-", "_"), k.replace("-", "_")): v for k, v in content.items()}


def read_json(text: str, *, source: str) -> Any:
    """The content of a config.json, brought up to date.

    Raises:
        ValueError: If the text is no JSON.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{source} is damaged ({error.msg}, line {error.lineno}); restore it or start "
            "over with --override"
        ) from None
    if isinstance(content, dict):
        # Runs of before the search for lost modes did without
        content.setdefault("coverage_calls", 0)
        # Once only the structure was kept
        checksum = content.pop("checksum", None)
        if checksum is not None:
            target = str(content.get("target"))
            kind = "cif" if Path(target).suffix.lower() in CIF_SUFFIXES else "pdb"
            content["inputs"] = [[target, f"structure.{kind}", checksum]]
    return content
