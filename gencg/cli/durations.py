"""Durations: read from words such as 2h, 30m or 01:30:00, and written for people."""

import re

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "min": 60, "s": 1}


def seconds_of(text: str) -> float:
    """Seconds of ``2h``, ``1h30m``, ``90s``, ``HH:MM:SS``, ``MM:SS`` or a plain number of seconds.

    Raises:
        ValueError: If the text is none of these, or not positive.

    >>> seconds_of("1h30m"), seconds_of("01:30:00")
    (5400.0, 5400.0)
    """
    word = text.strip().lower()
    number = r"\d+(?:\.\d+)?"
    if re.fullmatch(number, word):
        seconds = float(word)
    elif re.fullmatch(r"\d+(:[0-5]?\d){1,2}", word):
        seconds = 0.0
        for part in word.split(":"):
            seconds = 60 * seconds + int(part)
    elif re.fullmatch(rf"(?:{number}\s*(?:min|[dhms])\s*)+", word):
        parts = re.findall(rf"({number})\s*(min|[dhms])", word)
        seconds = sum(float(value) * _UNITS[unit] for value, unit in parts)
    else:
        raise ValueError(f"{text!r} is no duration, such as 2h, 1h30m, 90s or 01:30:00")
    if not 0 < seconds < float("inf"):
        raise ValueError(f"a duration must be positive, got {text!r}")
    return seconds


def in_words(seconds: float) -> str:
    """A duration as one would say it: ``40 s``, ``12 min``, ``3 h 10 min``."""
    if seconds < 89.5:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
