"""The examples of docs/*.md as code that runs.

A block of Python that begins with a comment such as `# shop/tools.py` is that module; another one
is a module without a name. A page's blocks know each other, those of another page they don't.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(ROOT.glob("docs/*.md"))

_BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (?P<path>[\w/]+)\.py\n")


@dataclass(frozen=True, slots=True)
class Example:
    """A block; `line` is where its code begins in the page."""

    page: Path
    line: int
    code: str

    @property
    def module_name(self) -> str:
        named = _FILE.match(self.code)
        if named is None:
            return f"{self.page.stem}_{self.line}"
        return named["path"].replace("/", ".")


def examples(page: Path) -> list[Example]:
    text = page.read_text()
    return [
        Example(page, text.count("\n", 0, found.start("code")) + 1, found["code"])
        for found in _BLOCK.finditer(text)
    ]


@contextmanager
def importing() -> Iterator[Callable[..., ModuleType]]:
    """Within the block, what is given is imported under its name; after it, it is forgotten.

    Further arguments are names that the module finds.
    """
    made: list[str] = []

    def imported(example: Example, **names: object) -> ModuleType:
        package, _, name = example.module_name.rpartition(".")
        if package and package not in sys.modules:
            _add(ModuleSpec(package, None, is_package=True))
        module = _add(ModuleSpec(example.module_name, None, origin=str(example.page)))
        if package:
            setattr(sys.modules[package], name, module)
        vars(module).update(names)
        # Its lines are those of the page, in a traceback too.
        code = "\n" * (example.line - 1) + example.code
        exec(compile(code, str(example.page), "exec"), module.__dict__)
        return module

    def _add(spec: ModuleSpec) -> ModuleType:
        module = sys.modules[spec.name] = module_from_spec(spec)
        module.__file__ = spec.name
        made.append(spec.name)
        return module

    try:
        yield imported
    finally:
        for name in made:
            sys.modules.pop(name, None)
