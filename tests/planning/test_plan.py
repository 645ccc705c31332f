"""The roofline by hand, and the search for the largest batch on memories made up."""

import pytest

from bertjax.planning.chips import CHIPS, SHARE, Chip, chip_of
from bertjax.planning.gpus import describe_gpu
from bertjax.planning.plan import bound_step, find_largest_batch
from bertjax.planning.program import CompiledStep, Memory
from bertjax.program.errors import UserError

SLOW = Chip(
    "slow",
    memory=1000,
    memory_rate=10.0,
    flops=100.0,
    link_rate=4.0,
    dimensions=2,
    most=4,
    source="",
)


def step_of(temporaries):
    return CompiledStep(Memory(60, 40, 200, 5, 2, 3, temporaries, 30), [], 1.0, 0.0)


REFUSED = CompiledStep(None, [], 1.0, 0.0, "too large")


def test_roofline_is_the_slowest_of_three():
    bounds = bound_step(SLOW, 5000.0, step_of(400).memory, sent=80)
    assert bounds.products == 5000 / 100
    # State and temporaries are read and written, the batch is read, other results are written; the
    # program is neither.
    assert bounds.memory == (2 * (60 + 40 + 200 + 2 + 400) + 5 + 3) / 10
    assert bounds.links == 80 / 4
    assert bounds.overlapped == bounds.memory
    assert bounds.in_turn == 50 + 141.2 + 20


def test_roofline_without_what_is_sent_is_that_of_the_others():
    bounds = bound_step(SLOW, 50_000.0, step_of(400).memory, sent=None)
    assert bounds.links is None
    assert bounds.overlapped == 500
    assert bounds.in_turn == 500 + 141.2


def test_every_generation_has_its_figures():
    assert set(CHIPS) == {"v4", "v5e", "v5p", "v6e", "h200", "h100", "a100"}
    for name, chip in CHIPS.items():
        assert chip.name == name
        maker = {"tpu": "cloud.google.com", "gpu": "nvidia.com"}[chip.platform]
        assert maker in chip.source
        # A roofline's ridge: so many operations a byte of HBM, a hundred and more on all of them.
        assert 100 < chip.flops / chip.memory_rate < 1000
        assert 2 < chip.memory_rate / chip.link_rate < 12
    assert chip_of("v5p:2x2x2") == CHIPS["v5p"]
    with pytest.raises(UserError, match=r"'v9:2x2'.*one of v4, v5e, v5p, v6e.*as v5e:4x4"):
        chip_of("v9:2x2")


def test_gpus_are_counted_by_partition_host_and_gpu():
    assert chip_of("h200:1x1x8") == chip_of("h200:2x4x1") == CHIPS["h200"]
    for wrong in ("h200:8", "h200:1x8", "h200:1x1x9", "h200:1x1x8_twisted"):
        with pytest.raises(UserError, match=r"GPUs in each, at most 8, such as h200:1x1x8"):
            chip_of(wrong)


def test_gpu_may_be_filled_as_far_as_jax_takes_its_memory(monkeypatch):
    monkeypatch.delenv(SHARE, raising=False)
    h100 = CHIPS["h100"]
    assert h100.usable == 60 << 30
    monkeypatch.setenv(SHARE, "0.5")
    assert h100.usable == 40 << 30
    assert CHIPS["v5e"].usable == 16 << 30
    for wrong in ("much", "0", "1.5", "nan"):
        monkeypatch.setenv(SHARE, wrong)
        with pytest.raises(UserError, match=f"{SHARE}={wrong} must be above 0 and at most 1"):
            _ = h100.usable


def test_gpu_is_described_by_what_is_published():
    text = describe_gpu("a100")
    for line in ("core_count: 108", "major: 8", "l2_cache_size: 41943040", "NVIDIA A100-SXM4-80GB"):
        assert line in text
    assert "9.0a" not in text
    assert 'platform_version: "Compute Capability 9.0a"' in describe_gpu("h200")


def search(temporaries, first, unit=8, available=1000, most=6, ceiling=1 << 20):
    """Of a step with `temporaries(rows)` bytes; also the sizes that were compiled."""
    tried = []

    def compile_rows(rows):
        size = temporaries(rows)
        return REFUSED if size is None else step_of(size)

    def note(rows):
        tried.append(rows)
        return compile_rows(rows)

    found = find_largest_batch(note, compile_rows(first), first, unit, available, most, ceiling)
    return found, tried


def test_straight_line_leads_to_the_largest_batch_at_once():
    # 340 bytes stay: 660 are left, 66 rows of 10; 64 is the last multiple of 8.
    found, tried = search(lambda rows: 10 * rows, first=16)
    assert (found.fits, found.fails) == (64, 72)
    assert tried == [64, 72]
    assert found.compilations == 2


def test_search_goes_down_from_what_does_not_fit():
    found, tried = search(lambda rows: 10 * rows if rows < 50 else None, first=256)
    assert (found.fits, found.fails) == (48, 56)
    assert tried == [128, 64, 32, 48, 56]


def test_memory_that_bends_near_the_limit_is_followed():
    # Beyond 32 rows the compiler computes again what it did not keep.
    found, tried = search(lambda rows: min(10 * rows, 320 + 2 * (rows - 32)), first=16, most=9)
    assert found.fits == 200
    assert found.fails == 208
    assert len(tried) <= 7


def test_search_ends_when_its_compilations_are_spent():
    found, tried = search(lambda rows: rows if rows < 500 else None, first=8, most=1)
    assert len(tried) == found.compilations == 1


def test_search_goes_up_to_the_ceiling():
    found, tried = search(lambda rows: rows // 100, first=16, ceiling=45)
    assert (found.fits, found.fails, tried) == (40, None, [32, 40])
    found, tried = search(lambda rows: rows // 100, first=64, ceiling=45)
    assert (found.fits, found.fails, tried) == (64, None, [])
    # What was asked for may be more, and does not fit: then the search is for less.
    found, tried = search(lambda rows: rows if rows < 60 else None, first=64, ceiling=45)
    assert (found.fits, found.fails) == (56, 64)


def test_nothing_fits():
    found, tried = search(lambda rows: None, first=32)
    assert (found.fits, found.fails) == (0, 8)
    assert tried == [16, 8]
