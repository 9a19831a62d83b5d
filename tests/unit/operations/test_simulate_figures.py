from operations.simulation.oracle import Submitted
from operations.simulation.simulate import labels_by_version, labels_to

GIVEN = [Submitted(f"2026-01-01T00:00:{second:02d}.000000Z", second, second, "a", None) for second in range(30)]
LIVE = {"v1": "2026-01-01T00:00:09.500000Z", "v2": "2026-01-01T00:00:19.500000Z"}


def test_a_version_counts_the_labels_given_before_it_answered() -> None:
    assert labels_by_version(GIVEN, LIVE) == {"v1": 10, "v2": 20}


def test_the_first_version_that_is_good_enough_says_how_many_labels_it_took() -> None:
    labels = {"v1": 10, "v2": 20, "v3": 30}
    assert labels_to({"v1": 0.7, "v2": 0.82, "v3": 0.79}, labels, 0.8) == 20
    assert labels_to({"v1": 0.7}, labels, 0.8) is None
    assert labels_to({"v4": 0.9}, labels, 0.8) is None  # never seen to answer
