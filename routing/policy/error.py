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
    if isinstance(value, int | float) and not isinstance(value, bool):  # noqa: SIM102
        # NaN is in no range.
        if low < value <= high or (value == low and not low_excluded):
            return float(value)
    accepted = f"a number {'above' if low_excluded else 'from'} {low:g} to {high:g}"
    raise PolicyError(f"routing.{name}", value, accepted)
