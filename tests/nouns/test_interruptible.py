"""A wait for another thread ends by Ctrl-C, even if the signal wakes no thread."""

import _thread
import threading
from concurrent.futures import Future

import pytest

from lakewriter.interruptible import CHECK_EVERY_S, result_of
from lakewriter.query.limits import QueryLimits
from support.running import PATIENCE_S


@pytest.mark.parametrize("limits", [None, {}, {"timeout_s": PATIENCE_S}])
def test_a_signal_that_wakes_no_thread_ends_the_wait(limits: dict[str, float] | None) -> None:
    """The handler's flag is set as by a signal that arrives just before the thread sleeps."""
    wait = result_of if limits is None else QueryLimits(**limits).wait
    future: Future[int] = Future()
    signal = threading.Timer(CHECK_EVERY_S / 5, _thread.interrupt_main)
    # A wait that does not notice the signal ends by this result, and the test fails.
    release = threading.Timer(30, future.set_result, [1])
    release.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.start()  # on a busy machine it may come before the wait
            wait(future)
        assert not future.done()
    finally:
        release.cancel()
        signal.join()


def test_a_result_and_each_error_are_given_on() -> None:
    """A TimeoutError of the work is raised, and ends the wait."""
    done: Future[int] = Future()
    done.set_result(5)
    assert result_of(done) == 5
    for error in (TimeoutError("of a network disk"), OSError("other")):
        failed: Future[int] = Future()
        threading.Timer(0.01, failed.set_exception, [error]).start()
        with pytest.raises(type(error), match=str(error)):
            result_of(failed)
