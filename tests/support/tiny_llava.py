"""The tiny LLaVA and the tiny data folder of scripts/make_tiny_llava.py, for tests."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_spec = importlib.util.spec_from_file_location("make_tiny_llava", ROOT / "scripts" / "make_tiny_llava.py")
assert _spec is not None and _spec.loader is not None
_script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_script)

make_checkpoint = _script.make_checkpoint
make_data = _script.make_data
picture = _script.picture
