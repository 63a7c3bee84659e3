"""The one error of everything that a request or a preset may ask, and the check of a number."""

from __future__ import annotations


class PolicyError(ValueError):
    """A policy that cannot be accepted: names the field, the value and the accepted range."""

    def __init__(self, field: str, value: object, accepted: str) -> None:
        self.field = field
        self.value = value
        self.accepted = accepted
        super().__init__(f"{field} must be {accepted}, got {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def check_number(
    name: str, value: object, low: float, high: float, *, low_excluded: bool = False
) -> float:
    """The value of a key, or of an item in one, as a number in range. Raises PolicyError."""
    accepted = f"a number {'above' if low_excluded else 'from'} {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PolicyError(f"routing.{name}", value, accepted)
    if not low <= value <= high or (low_excluded and value == low):  # NaN is in no range
        raise PolicyError(f"routing.{name}", value, accepted)
    return float(value)
