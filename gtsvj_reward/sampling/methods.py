"""Replace a method of one object within a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


@contextmanager
def wrapped_method(
    owner: Any, name: str, around: Callable[[Callable[..., Any], tuple[Any, ...], Any], Any]
) -> Iterator[None]:
    """Call `around(method, args, keywords)` in place of a method, until the block is left.

    The replacement keeps the signature: pipelines read it to decide whether a scheduler takes a
    generator. Blocks may be nested, and must be left in the opposite order.

    Args:
        owner: the object; other objects of its class are not touched.
        name: of the method.
        around: decides whether and how to call the method; what it returns is returned.
    """
    method = getattr(owner, name)

    @wraps(method)
    def stand_in(*args: Any, **keywords: Any) -> Any:
        return around(method, args, keywords)

    before = dict(vars(owner))
    setattr(owner, name, stand_in)
    try:
        yield
    finally:
        if name in before:
            setattr(owner, name, before[name])
        else:
            delattr(owner, name)
