"""Closing components: one whose `close` fails takes neither the others nor what was done along."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

logger = logging.getLogger(__name__)


class Closable(Protocol):
    """What is released at the end."""

    def close(self) -> None: ...


Closed = TypeVar("Closed", bound=Closable)


def close_all(components: Iterable[Closable]) -> None:
    """Close each of them, in order. What one of them raises is logged as a warning that names its class: by then work
    is done or has failed, and neither is to be hidden."""
    for component in components:
        try:
            component.close()
        except Exception as error:
            logger.warning("%s could not be closed: %s: %s", type(component).__name__, type(error).__name__, error)
            logger.debug("Traceback:", exc_info=True)


@contextmanager
def closing(component: Closed) -> Iterator[Closed]:
    """As `contextlib.closing`, closed by `close_all`: an error inside stays the error that is told."""
    try:
        yield component
    finally:
        close_all([component])
