"""How often somebody may try to log in."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass, field
from threading import Lock

#: Failed logins after which there is a wait, twice as long each time.
_FREE_ATTEMPTS, _LONGEST_WAIT_SECONDS, _MOST_REMEMBERED = 5, 900.0, 10_000


@dataclass
class Attempts:
    """Counts the logins that an address, or those of a name, did not succeed with.

    Attributes:
        failures: How many there were, and when the last one was, in seconds of the monotonic clock.
    """

    failures: dict[str, tuple[int, float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def begin(self, *keys: str) -> float:
        """Count an attempt as failed, until `forget`: a hundred at once are a hundred, too.

        Returns:
            How many seconds to wait first; then it does not count.
        """
        with self._lock:
            if (wait := max(map(self._wait, keys))) > 0:
                return wait
            if len(self.failures) > _MOST_REMEMBERED:
                self._drop_old()
            for key in keys:
                self.failures[key] = (self.failures.get(key, (0, 0.0))[0] + 1, time.monotonic())
        return 0.0

    def forget(self, *keys: str) -> None:
        """Forget failures, after a success."""
        with self._lock:
            for key in keys:
                self.failures.pop(key, None)

    def _wait(self, key: str) -> float:
        count, last = self.failures.get(key, (0, 0.0))
        if count < _FREE_ATTEMPTS:
            return 0.0
        wait = min(2.0 ** min(count - _FREE_ATTEMPTS, 64), _LONGEST_WAIT_SECONDS)
        return max(0.0, last + wait - time.monotonic())

    def _drop_old(self) -> None:
        """Keep the latest half."""
        latest = sorted(self.failures.items(), key=lambda item: item[1][1])[_MOST_REMEMBERED // 2 :]
        self.failures = dict(latest)


def network_of(address: str) -> str:
    """Return what one subscriber is given: an IPv4 address, or the first 64 bits of one of IPv6 (RFC 6177)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed), 64), strict=False))
