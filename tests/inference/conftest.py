"""Lets the tests import `small_encoder`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
