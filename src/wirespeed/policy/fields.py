"""Header fields of other people's servers: numbers and dates that may be anything at all.

Nothing here raises, whatever a field holds; what is broken is as good as absent.
"""

import datetime
import email.utils
import re
from collections.abc import Mapping

_MAX_LENGTH = 64
"""Characters of a number or a date; the longest date of RFC 9110 has 33."""

# Not \d, and no float(): those take the digits of other scripts, underscores, signs, "nan" and "1e400".
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")


def number(text: str | None) -> float | None:
    """Return a number that is not negative, or None where the text is no such thing.

    Args:
        text: up to 15 digits, perhaps with a fraction; blanks around it do not matter.
    """
    if text is None or len(text) > _MAX_LENGTH:
        return None
    text = text.strip(" \t")
    return float(text) if _NUMBER.fullmatch(text) else None


def http_date(text: str) -> float | None:
    """Return the seconds since 1970 of a date, or None where the text is no date.

    Args:
        text: in one of the three forms of RFC 9110 section 5.6.7; what mailers write is read as well.
    """
    if len(text) > _MAX_LENGTH or not text.isascii():
        return None
    try:
        date = email.utils.parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.timezone.utc)  # the form of asctime(), which is in UTC
        return date.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def retry_after(headers: Mapping[str, str], wall_now: float) -> float | None:
    """Return how long a response asks to wait, by its field Retry-After (RFC 9110 section 10.2.3).

    There is no upper bound: whoever waits sets one.

    Args:
        headers: of the response, case-insensitive.
        wall_now: seconds since 1970, as of `time.time()`; dates are seen from there.

    Returns:
        Seconds from now, 0 for a date that has passed; None where the field is absent or broken.
    """
    text = headers.get("Retry-After")
    if text is None:
        return None
    seconds = number(text)
    if seconds is not None:
        return seconds
    date = http_date(text.strip(" \t")) if len(text) <= _MAX_LENGTH else None
    return None if date is None else max(0.0, date - wall_now)
