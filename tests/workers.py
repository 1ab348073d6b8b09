"""Which worker process runs which file: whole files, those that wait for servers first."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

FIRST = ("tests/cluster/", "tests/browser/", "tests/border/")
"""Folders whose files take long, each for its own reasons: what is quick fills the gaps after."""
ALONE = ("tests/border/test_crowds.py",)
"""Files that want the whole machine: they come when the others are done, one after another."""


class WholeFiles(LoadFileScheduling):
    """As `--dist=loadfile`; and a test that ends its process is not run again by another."""

    def _reschedule(self, node: WorkerController) -> None:
        if self._goes_home(node):
            node.shutdown()
        else:
            super()._reschedule(node)

    def _goes_home(self, node: WorkerController) -> bool:
        """Whether only what runs alone is left, and another worker will be there for it."""
        return (
            not node.shutting_down
            and bool(self.workqueue)
            and all(each in ALONE for each in self.workqueue)
            and self._pending_of(self.assigned_work[node]) <= 2  # as much as it is sent ahead
            and any(not other.shutting_down for other in self.nodes if other is not node)
        )

    def _assign_work_unit(self, node: WorkerController) -> None:
        waiting = [each for each in self.workqueue if each not in ALONE] or list(self.workqueue)
        first = next((each for each in waiting if each.startswith(FIRST)), waiting[0])
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
