"""Settings from files: TOML of the user, and the config.json of earlier versions."""

import json
import tomllib
from pathlib import Path
from typing import Any

from gencg.systems.structure import CIF_SUFFIXES

LARGEST_SETTINGS = 10_000_000
"""Bytes of a file of settings or of a summary at most."""
_ALIASES = {"cvs": "n_cvs", "samples": "n_samples", "format": "formats", "define": "defines"}


def read_small(path: str | Path) -> str:
    """Text of a file of settings.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is no text, or larger than any such file.
    """
    with open(path, "rb") as file:
        content = file.read(LARGEST_SETTINGS + 1)
    if len(content) > LARGEST_SETTINGS:
        raise ValueError(f"{path} has more than {LARGEST_SETTINGS:,} bytes; it is no settings")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged, it is no text ({error.reason})") from None


def read_object(path: str | Path) -> dict[str, Any]:
    """A JSON object, such as a summary; errors as of `read_small`, and for other contents."""
    try:
        content = json.loads(read_small(path))
    except RecursionError:
        raise ValueError(f"{path} is damaged, it is nested too deeply") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged, it holds no values by name")
    return content


def read_toml(path: str | Path) -> dict[str, Any]:
    """Settings of a TOML file; dashes in names count as underscores.

    Raises:
        ValueError: If the file is missing or is not TOML.
    """
    try:
        content = tomllib.loads(read_small(path))
    except OSError as error:
        raise ValueError(f"`config` file {path} cannot be read: {error.strerror}") from None
    # The reader of TOML goes down with what it reads
    except (ValueError, RecursionError) as error:
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
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{source} is damaged ({error}); restore it or start over with --override"
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
