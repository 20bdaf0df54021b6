"""Fixtures shared by the suites."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class AioBenchmark:
    """pytest-benchmark's fixture for coroutine functions: the measured time includes awaiting the
    call.

    pytest-benchmark alone would measure how long it takes to create the coroutine, which would
    never run. One event loop lives for the whole test, so that connections opened before (`wait`)
    last. Entering the loop takes some 20 us per call: let one call await many operations.
    """

    def __init__(self, benchmark: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._benchmark = benchmark
        self._loop = loop
        self.extra_info: dict[str, Any] = benchmark.extra_info

    def wait(self, awaitable: Awaitable[T]) -> T:
        """Await something without measuring it."""
        return self._loop.run_until_complete(awaitable)

    def __call__(self, function: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        """Like ``benchmark(function, ...)``: rounds and iterations are calibrated."""
        result: T = self._benchmark(lambda: self.wait(function(*args, **kwargs)))
        return result

    def pedantic(self, function: Callable[..., Awaitable[T]], **options: Any) -> T:
        """Like ``benchmark.pedantic(function, ...)``: ``rounds``, ``iterations`` and so on."""
        result: T = self._benchmark.pedantic(
            lambda *args, **kwargs: self.wait(function(*args, **kwargs)), **options
        )
        return result


@pytest.fixture
def aio_benchmark(benchmark: Any) -> Iterator[AioBenchmark]:
    """See `AioBenchmark`."""
    loop = asyncio.new_event_loop()
    try:
        yield AioBenchmark(benchmark, loop)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
