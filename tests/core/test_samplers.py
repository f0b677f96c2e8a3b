import numpy as np
import pytest

from vpr_lib.samplers import PlaceSampler

PLACES = np.array([f"{'ab'[i % 2]}/{i // 8:02}" for i in range(200)] + ["a/few"] * 2 + [""] * 5, dtype=object)
# 50 places of 4 photos, one of 2, and 5 photos without a place


def epoch(sampler, number, first=0):
    sampler.set_epoch(number, first)
    return [batch.rows for batch in sampler]


def test_batches_hold_distinct_photos_of_p_places():
    sampler = PlaceSampler(PLACES, num_places=8, images_per_place=3)
    seen = []
    for rows in epoch(sampler, 0):
        places = PLACES[rows].reshape(-1, 3)
        assert (places == places[:, :1]).all()  # K photos of one place each
        assert len(set(places[:, 0])) == len(places)
        assert len(set(rows)) == len(rows)  # never a photo twice: drawn without replacement
        seen += list(places[:, 0])
    assert sorted(seen) == sorted(set(PLACES[:200]))  # each place once an epoch
    assert len(sampler) == 7
    assert sampler.summary == (
        "200 photos of 50 places; left out: 1 places with fewer than 3 photos"
        "; left out: 5 photos whose name holds no place"
    )


def test_every_photo_is_drawn_over_the_epochs():
    sampler = PlaceSampler(PLACES, 8, 2)
    drawn = np.concatenate([np.concatenate(epoch(sampler, e)) for e in range(30)])
    assert set(drawn) == set(range(202))  # all but the photos without a place


def test_an_epoch_is_a_function_of_seed_and_number():
    sampler = PlaceSampler(PLACES, 8, 3, seed=1)
    first = epoch(sampler, 0)
    second = epoch(sampler, 1)
    again = epoch(PlaceSampler(PLACES, 8, 3, seed=1), 1)
    assert all((a == b).all() for a, b in zip(second, again, strict=True))
    assert not (first[0] == second[0]).all()
    assert not (epoch(PlaceSampler(PLACES, 8, 3, seed=2), 0)[0] == first[0]).all()


def test_cities_are_mixed_and_in_another_order_each_epoch():
    sampler = PlaceSampler(PLACES, 8, 3)
    cities = [[name[0] for name in PLACES[np.concatenate(epoch(sampler, e))]] for e in range(2)]
    assert cities[0] != cities[1]
    assert {"a", "b"} == set(cities[0][:24])


def test_batches_do_not_depend_on_the_order_of_the_cities():
    order = np.argsort(PLACES, kind="stable")[::-1]
    turned = PlaceSampler(PLACES[order], 8, 4)
    straight = PlaceSampler(PLACES, 8, 4)
    for a, b in zip(epoch(straight, 0), epoch(turned, 0), strict=True):
        assert (PLACES[a] == PLACES[order][b]).all()
    assert (straight.labels[order] == turned.labels).all()


def test_it_can_start_in_mid_epoch():
    sampler = PlaceSampler(PLACES, 8, 3)
    whole = epoch(sampler, 3)
    rest = epoch(sampler, 3, first=4)
    assert len(rest) == len(whole) - 4
    assert all((a == b).all() for a, b in zip(whole[4:], rest, strict=True))


def test_ranks_share_each_batch():
    ranks = [PlaceSampler(PLACES, 8, 3, rank=r, world_size=2) for r in range(2)]
    alone = PlaceSampler(PLACES, 8, 3)
    for first, second, both in zip(*(epoch(s, 0) for s in ranks), epoch(alone, 0), strict=True):
        assert len(first) == len(second)
        places = [set(PLACES[rows]) for rows in (first, second, both)]
        assert not places[0] & places[1]
        assert places[0] | places[1] <= places[2]
    with pytest.raises(ValueError, match="multiple of the 2 ranks"):
        PlaceSampler(PLACES, 7, 3, world_size=2)


def test_a_last_batch_of_one_place_is_left_out():
    places = np.repeat([f"p{i}" for i in range(9)], 2).astype(object)
    assert [len(rows) for rows in epoch(PlaceSampler(places, 4, 2), 0)] == [8, 8]
    assert [PlaceSampler(places, p, 2).photos_per_epoch for p in (4, 5, 9, 50)] == [16, 18, 18, 18]
    assert [len(rows) for rows in epoch(PlaceSampler(places[:-4], 5, 2), 0)] == [10, 4]


def test_too_few_places_is_an_error_that_counts():
    with pytest.raises(ValueError, match="0 places have 5 photos or more, of 51 places in 207 photos"):
        PlaceSampler(PLACES, 8, 5)
