"""Which worker process runs which file: whole files, those that wait for servers first."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

FIRST = ("tests/cluster/", "tests/browser/", "tests/border/")
"""Folders whose files take long, each for its own reasons: what is quick fills the gaps after."""


class WholeFiles(LoadFileScheduling):
    """As `--dist=loadfile`; and a test that ends its process is not run again by another."""

    def _assign_work_unit(self, node: WorkerController) -> None:
        first = next((each for each in self.workqueue if each.startswith(FIRST)), None)
        if first is not None:
            self.workqueue.move_to_end(first, last=False)
        super()._assign_work_unit(node)

    def remove_node(self, node: WorkerController) -> str | None:
        for tests in self.assigned_work[node].values():
            for test, ended in tests.items():
                if not ended:
                    tests[test] = True
                    super().remove_node(node)
                    return test
        return super().remove_node(node)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> WholeFiles | None:
    return WholeFiles(config, log) if config.getoption("dist") == "loadfile" else None
