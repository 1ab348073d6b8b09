"""Kinds of events that apps define. Each is registered in one place, in `AppConfig.ready`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeAlias

from sessions_app.inference.errors import ConfigurationError
from sessions_app.inference.events import check_app_kind

Props: TypeAlias = Mapping[str, Any]
Fold: TypeAlias = Callable[[Props, Props], Props]


def merged(before: Props, told: Props) -> Props:
    """The default fold: each prop that is told replaces the one of that name."""
    return {**before, **told}


@dataclass(frozen=True, slots=True)
class AppKind:
    """What becomes of an app's events of one kind, and how the page shows that.

    `fold` makes an entity's props of those it had and those of the next event. It is pure and
    quick, and runs once for each event, in the conversation's writer: frames carry what it changed.

    `template` draws the card's content from `props`. In the browser each of its data-slot elements
    shows the prop of that name, or, with a `module`, what that module makes of them. Without a
    template the card is readable JSON. `module` and `style` are paths of static files.
    """

    kind: str
    _: KW_ONLY
    fold: Fold = merged
    template: str = ""
    module: str = ""
    style: str = ""

    def __post_init__(self) -> None:
        check_app_kind(self.kind)
        if self.module and not self.template:
            raise ConfigurationError(
                f"the kind {self.kind!r} has the module {self.module!r} and no template",
                hint="Name a template whose elements the module fills.",
            )


class AppKinds:
    """The registered kinds, by name."""

    def __init__(self, kinds: Iterable[AppKind] = ()) -> None:
        self._kinds: dict[str, AppKind] = {}
        for kind in kinds:
            self.register(kind)

    def register(self, kind: AppKind) -> None:
        """Adds a kind; the same one again changes nothing, for `ready` may run more than once.

        Raises ConfigurationError when another one has its name.
        """
        if self._kinds.setdefault(kind.kind, kind) != kind:
            raise ConfigurationError(
                f"two kinds of app events are named {kind.kind!r}",
                hint="Give each one a name of its own, as in `myapp-mood`.",
            )

    def get(self, kind: str) -> AppKind | None:
        return self._kinds.get(kind)

    def __iter__(self) -> Iterator[AppKind]:
        return iter(self._kinds.values())


default_kinds = AppKinds()
"""The kinds of the installed apps."""
