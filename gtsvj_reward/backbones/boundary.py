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

    def run(self, block: Callable[[], Any], inputs: tuple[Any, ...]) -> Any:
        """What the next block returns, which may be what is `given`.

        Args:
            block: calls it.
            inputs: what it is called with, the streams first.
        """
        self.calls += 1
        if self.calls > self.frozen:
            return block()
        if self.given is None:
            output = block()
            if self.calls == self.frozen:
                self.seen = output if isinstance(output, tuple) else (output,)
            return output
        # Blocks before the last frozen one pass their input on: nobody looks at it.
        streams = self.given if self.calls == self.frozen else inputs[: len(self.given)]
        return streams if len(streams) > 1 else streams[0]
