"""An answer as long as wanted, with all that answers are made of, in pieces of an ordinary size."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

PIECE_CHARACTERS = 40

_PART = """## Part {n}

The quick brown fox jumps over the lazy dog, **again** and *again*, with `code` and a
[link](https://example.org/{n}) in the middle of a sentence that is as long as sentences
of models are, which is rather long, and goes on for a while.

- one item with some words in it
- another with `inline code` and more words
- a third

```python
def part_{n}(value: int) -> int:
    return value * {n} + 1
```

| a | b |
|---|---|
| {n} | some words |

"""


def pieces() -> Iterator[str]:
    """Without end."""
    text = ""
    for number in count(1):
        text += _PART.format(n=number)
        while len(text) >= PIECE_CHARACTERS:
            yield text[:PIECE_CHARACTERS]
            text = text[PIECE_CHARACTERS:]
