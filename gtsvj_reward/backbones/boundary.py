"""What leaves frozen blocks: taken down in one forward pass, put into another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Features = tuple[Tensor, ...]
"""What a block returns, a tensor (batch, ...) for each stream: video tokens, text tokens."""


@dataclass
class Boundary:
    """One forward pass of a backbone, as seen from its block `frozen - 1`.

    Attributes:
        frozen: number of blocks in front of it.
        given: what leaves them, from an earlier pass; they are not run then. None: they are run.
        seen: what left them, once they have run.
        calls: blocks that were asked for so far.
    """

    frozen: int
    given: Features | None = None
    seen: Features = ()
    calls: int = 0

    def run(self, block: Callable[[], Any]) -> Any:
        """What the next block returns, or what is `given` for each of the frozen ones."""
        self.calls += 1
        if self.calls > self.frozen:
            return block()
        if self.given is None:
            output = block()
            if self.calls == self.frozen:
                self.seen = output if isinstance(output, tuple) else (output,)
            return output
        return self.given if len(self.given) > 1 else self.given[0]
