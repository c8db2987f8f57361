# SPDX-License-Identifier: Apache-2.0
"""The fixtures of test/cluster, for tests that take long."""

import pathlib
import runpy
import sys

CLUSTER = pathlib.Path(__file__).resolve().parents[1] / "cluster"
sys.path.insert(0, str(CLUSTER))
# Not imported: to pytest, and to the modules there, this is `conftest`.
globals().update({k: v for k, v in
                  runpy.run_path(str(CLUSTER / "conftest.py")).items()
                  if not k.startswith("__")})
