"""Proves watchdog.py and workers.py: whatever a test does, the run goes on and ends."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SOON = """
import tests.watchdog
tests.watchdog.GRACE = 0.5
pytest_plugins = ["tests.watchdog", "tests.workers"]
"""
STUCK = """
import asyncio, subprocess, sys
import pytest

@pytest.fixture
def stuck():
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("its program is", program.pid)
    yield
    asyncio.run(never_cancelled())

async def never_cancelled():
    await asyncio.Event().wait()

def test_fails_and_never_ends(stuck):
    raise ValueError

def test_comes_after():
    pass
"""


def test_a_teardown_that_never_ends_costs_its_process_and_no_other_test(tmp_path: Path):
    (tmp_path / "conftest.py").write_text(SOON)
    (tmp_path / "test_stuck.py").write_text(STUCK)
    (tmp_path / "pytest.ini").touch()

    plugins = ["-p", "xdist.plugin", "-p", "pytest_timeout"]
    workers = ["--numprocesses=1", "--dist=loadfile"]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *workers, "--timeout=1", "-vv", tmp_path],
        capture_output=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTEST_ADDOPTS": "",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(ROOT),
        },
        text=True,
        timeout=90,
    )

    assert run.returncode == 1
    assert "1 passed" in run.stdout, run.stdout + run.stderr
    assert "crashed while running 'test_stuck.py::test_fails_and_never_ends'" in run.stdout
    assert "the teardown of test_stuck.py::test_fails_and_never_ends has not ended" in run.stderr
    assert "never_cancelled" in run.stderr
    [killed] = re.findall(r"killing (\d+): .*time\.sleep\(600\)", run.stderr)
    assert not psutil.pid_exists(int(killed)) or psutil.Process(int(killed)).status() == "zombie"
