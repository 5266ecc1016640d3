"""Scenarios that mostly wait: all scenarios of a module run in one event loop."""

import asyncio
import contextlib
import functools
import inspect
import io
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import pytest

# Each has a recorder and an exchange of its own, and they share the time of one event loop.
AT_ONCE = 10


class Outcomes(NamedTuple):
    """The errors and the output of a module's scenarios.

    Args:
        errors: error by test name, or None.
        said: their output, such as seeds.
    """

    errors: dict[str, BaseException | None]
    said: str


def side_by_side(scenario: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Return a test that raises the error of its scenario.

    Args:
        scenario: takes `tmp_path` and its parameters. It must not block the event
            loop, which it shares with other scenarios.
    """

    @functools.wraps(scenario)
    def test(request: pytest.FixtureRequest, played: Outcomes, **_: object) -> None:
        error = played.errors[request.node.name]
        if error is not None:
            print(played.said)
            raise error

    # For pytest: what is drawn for a scenario is drawn for its test.
    own = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("request", "played")]
    drawn = [each for name, each in inspect.signature(scenario).parameters.items() if name != "tmp_path"]
    test.__signature__ = inspect.Signature([*own, *drawn])  # type: ignore[attr-defined]
    test.scenario = scenario  # type: ignore[attr-defined]
    return test


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """Run the selected scenarios of a module."""
    tests = [
        each
        for each in request.session.items
        if isinstance(each, pytest.Function)
        and each.getparent(pytest.Module) is request.node
        and hasattr(each.function, "scenario")
    ]
    room = asyncio.Semaphore(AT_ONCE)

    async def play(test: pytest.Function) -> None:
        drawn = test.callspec.params if hasattr(test, "callspec") else {}
        async with room:
            await test.function.scenario(tmp_path=tmp_path_factory.mktemp("scenario"), **drawn)

    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(*map(play, tests), return_exceptions=True)

    with contextlib.redirect_stdout(io.StringIO()) as said:
        errors = asyncio.run(all_of_them())
    return Outcomes(dict(zip((each.name for each in tests), errors, strict=True)), said.getvalue())
