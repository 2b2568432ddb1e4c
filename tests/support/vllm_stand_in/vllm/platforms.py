"""The platform of the stand-in."""

from __future__ import annotations


class Platform:
    device_type = "cpu"


current_platform = Platform()
