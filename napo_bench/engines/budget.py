"""A number of requests that several endpoints may send together."""

from __future__ import annotations

import threading


class Budget:
    """A budget of HTTP requests.

    Args:
        requests: Number of requests, including retries.
    """

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self._left = requests
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Take one request; False if none is left."""
        with self._lock:
            if self._left == 0:
                return False
            self._left -= 1
            return True
