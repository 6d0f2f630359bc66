import numpy as np
from threadpoolctl import threadpool_info

from trl_prune.data.selection.threads import one_thread


def threads():
    np.ones((2, 2)) @ np.ones((2, 2))
    return [library["num_threads"] for library in threadpool_info()]


def test_every_library_uses_one_thread_inside_and_as_many_as_before_outside():
    before = threads()
    for _ in range(2):
        with one_thread():
            assert set(threads()) == {1}
        assert threads() == before
