"""The collector is paused while a function runs, and as before afterwards."""

import gc

import pytest

from napo_bench.core.garbage import without_collection


@pytest.mark.parametrize("was_on", [True, False])
def test_the_collector_is_as_before_after_a_result_and_after_an_error(was_on):
    @without_collection
    def divide(by):
        assert not gc.isenabled()
        return 6 / by

    try:
        (gc.enable if was_on else gc.disable)()
        assert divide(by=3) == 2
        assert gc.isenabled() == was_on
        with pytest.raises(ZeroDivisionError):
            divide(0)
        assert gc.isenabled() == was_on
    finally:
        gc.enable()
