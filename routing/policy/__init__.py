"""What a request may ask of the router: keys, modes, and the checked `Policy`.

Reading order: `keys` and `modes` (the table), `policy` (parsing), `steering`. Importing it
takes the standard library only: neither NumPy nor numba nor vLLM.
"""

from routing.policy.error import PolicyError
from routing.policy.policy import Policy, parse_policy

__all__ = ["Policy", "PolicyError", "parse_policy"]
