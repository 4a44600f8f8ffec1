"""Threads wait for each other asleep, unless the user said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SAY = "import os; print(os.environ.get('OMP_WAIT_POLICY'), torch.get_num_threads())"


@pytest.mark.parametrize(
    "given, first, policy",
    [
        ({}, "import interp_helpers, torch", "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "import interp_helpers, torch", "ACTIVE"),
        ({}, "import torch, interp_helpers", "None"),  # torch has read it, and it would mean nothing
    ],
)
def test_threads_wait_asleep_unless_the_user_or_torch_was_first(given, first, policy):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    environment |= given | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", f"{first}; {SAY}"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert said == [policy, "2"]  # and the number of threads is the user's
