"""Text from elsewhere on its way to a terminal."""

import re

_UNSAFE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""A text with its control characters as escapes; line breaks and tabs stay.

    Args:
        text: Whatever a file or a solver said; control characters would move the cursor, change
            colours, or hide words.

    Example:
        >>> printable("all good\x1b[2J")
        'all good\\x1b[2J'
    """
    return _UNSAFE.sub(lambda found: ascii(found.group())[1:-1], text)
