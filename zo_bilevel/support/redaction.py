"""Keeps secrets out of messages and logs."""

import re
from collections.abc import Iterable, Mapping

HIDDEN = "***"
MIN_LENGTH = 4
"""Shorter values ("1", "on") are no secrets, and hiding them would make messages unreadable."""
_SECRET_NAME = re.compile(r"key|token|secret|pass|credential|auth", re.IGNORECASE)


def hide(text: str, secrets: Iterable[str]) -> str:
    """Replace every secret in a text.

    Example:
        >>> hide("401 for Bearer abc123", ["abc123"])
        '401 for Bearer ***'
    """
    for secret in sorted({s for s in secrets if s}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


def secret_values(given: Mapping[str, str], inherited: Mapping[str, str]) -> list[str]:
    """Values of environment variables that no message may show.

    Args:
        given: Passed by the user to an adapter: all of them, but for very short ones whose name
            tells nothing.
        inherited: The process's own environment: those whose name speaks of a secret.

    Example:
        >>> secret_values({"DSN": "db://u:p@h", "MODE": "on"}, {"API_KEY": "k-123", "PATH": "/bin"})
        ['db://u:p@h', 'k-123']
    """
    own = [v for name, v in given.items() if len(v) >= MIN_LENGTH or _SECRET_NAME.search(name)]
    return own + [
        value
        for name, value in inherited.items()
        if len(value) >= MIN_LENGTH and _SECRET_NAME.search(name)
    ]
