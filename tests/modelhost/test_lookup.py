"""Where a text has been before, and what each owner was answered."""

from __future__ import annotations

from modelhost.lookup import OWNERS, REMEMBERED, REMEMBERED_OF_ALL, Lookup, Memory


def test_what_follows_is_found_by_the_last_tokens():
    lookup = Lookup()
    lookup.extend([1, 2, 3, 4, 1, 2, 5, 6])

    assert lookup.find([9, 1, 2]) == (6, 2), "the newest place, and how far it agrees"
    assert lookup.find([1, 2, 3]) == (3, 3)
    assert lookup.find([7]) == lookup.find([]) == (0, 0)
    assert lookup.follow(3, 3) == [4, 1, 2]
    assert lookup.follow(3, 0) == lookup.follow(3, -1) == []


def test_the_end_of_a_text_is_not_its_own_place():
    lookup = Lookup()
    lookup.extend([1, 2, 3])
    assert lookup.find([1, 2, 3]) == (0, 0)

    lookup.extend([1])

    assert lookup.find([2, 3, 1]) == (1, 1)


def test_a_refrain_goes_on_beyond_its_end():
    lookup = Lookup()
    lookup.extend([7, 8, 9, 7, 8])

    place, _ = lookup.find([7, 8])

    assert lookup.follow(place, 7) == [9, 7, 8, 9, 7, 8, 9]


def test_an_owners_answers_are_remembered_one_by_one():
    memory = Memory()
    memory.add("ada", [1, 2, 3])
    memory.add("ada", [4, 5, 6])

    place, agreed = memory.of("ada").find([0, 2, 3])
    assert agreed == 2
    assert memory.of("ada").follow(place, 4) == [], "the answer was over there"
    assert memory.of("ada").follow(memory.of("ada").find([4])[0], 9) == [5, 6]
    assert memory.of("bob").find([2, 3]) == memory.of("").find([2, 3]) == (0, 0)


def test_memory_is_bounded():
    memory = Memory()
    for number in range(OWNERS + 1):
        memory.add(f"owner {number}", [1, 2, 3])
    assert memory.of("owner 0").tokens == []
    assert memory.of("owner 1").tokens != []

    for _ in range(5):
        memory.add("owner 1", [4] * (REMEMBERED // 2))
        assert len(memory.of("owner 1").tokens) < 2 * REMEMBERED


def test_a_memory_without_an_owner_is_none():
    memory = Memory()
    memory.add("", [1, 2, 3])

    assert memory.of("").tokens == []


def test_all_owners_together_have_so_much_of_it():
    memory = Memory()
    for number in range(20):
        memory.add(f"owner {number}", [1] * (REMEMBERED_OF_ALL // 10))
    remembered = [len(memory.of(f"owner {number}").tokens) for number in range(20)]

    assert sum(remembered) <= REMEMBERED_OF_ALL
    assert [size > 0 for size in remembered] == [False] * 11 + [True] * 9
