"""The benchmarks do what their tables say, and the page shows the committed results."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command_line
from benchmarks import cases, contenders, results
from benchmarks.comparing import compare
from benchmarks.measuring import measure
from benchmarks.stage import Stage
from benchmarks.tables import put_into, text
from benchmarks.workloads import QUICK
from tests.servers.s3 import S3Server

ROOT = Path(__file__).parents[2]
CONTENDERS = list(dict.fromkeys(case.contender for case in cases.all_cases(QUICK)))


def named(contender: contenders.Contender) -> str:
    return f"{contender.name} ({contender.module})"


# One of them runs quickly, and every operation; the others take as long each.
RUN = [
    one if one is contenders.OBSTORE else pytest.param(one, marks=pytest.mark.slow)
    for one in CONTENDERS
]


@pytest.mark.parametrize("contender", RUN, ids=named)
def test_each_operation_runs(
    contender: contenders.Contender, seaweed_s3: S3Server, tmp_path: Path
) -> None:
    if contender.missing:
        pytest.skip(contender.missing)
    wanted = [case for case in cases.all_cases(QUICK) if case.contender == contender]
    once = [
        dataclasses.replace(case, bytes=0, each_round=1)  # without bytes, nothing warms up
        for case in {case.operation: case for case in wanted}.values()
    ]
    found, failed = measure(once, Stage(seaweed_s3, tmp_path, QUICK), runs=1, most=60.0)
    assert not failed
    assert [case.tool for case in found] == [case.name for case in once]
    assert all(min(case.seconds) > 0 and min(case.mib) > 1 for case in found)


def test_requests_are_those_of_the_work_alone(seaweed_s3: S3Server, tmp_path: Path) -> None:
    loop = next(
        case for case in cases.all_cases(QUICK) if case.contender is contenders.OBSTORE_LOOP
    )
    told: list[str] = []
    found, _ = measure([loop], Stage(seaweed_s3, tmp_path, QUICK), runs=2, tell=told.append)
    assert [case.requests for case in found] == [[QUICK.large.blobs] * 2]
    assert [line.rpartition(": ")[2] for line in told] == [
        "warming up",
        "round 1 of 2",
        "round 2 of 2",
    ]


def test_what_a_run_wrote_is_emptied_wherever_it_lies(seaweed_s3: S3Server, tmp_path: Path) -> None:
    """Files that a run leaves in memory would make later runs slower."""
    with Stage(seaweed_s3, tmp_path, QUICK).new_folder() as into:
        written = [into, into.parent / "beside", into.parent / "folder" / "inside"]
        for path in written:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"much")
    assert [path.read_bytes() for path in written] == [b""] * 3


def test_a_case_that_fails_does_not_end_the_others(seaweed_s3: S3Server, tmp_path: Path) -> None:
    wanted = [case for case in cases.all_cases(QUICK) if case.group == "graph"]
    good = next(case for case in wanted if case.contender is contenders.CACHEFS)
    bad = dataclasses.replace(good, contender=contenders.OBSTORE)  # takes other arguments
    found, failed = measure([bad, good], Stage(seaweed_s3, tmp_path, QUICK), runs=1)
    assert [case.tool for case in found] == ["cachefs"]
    assert "TypeError" in failed[f"{bad.work}, cachefs, obstore"]


def case(seconds: list[float], **more: Any) -> results.Case:
    shown = {"group": "upload", "work": "upload 1", "tool": "cachefs", "ours": True} | more
    return results.Case(**shown, parallelism=4, seconds=seconds, cpu=seconds, mib=[50.0] * 3)


def result(*found: results.Case) -> results.Results:
    return results.Results(machine={"cores": 2}, runs=3, quick=True, cases=list(found))


@pytest.mark.parametrize(
    ("now", "slower"),
    [
        ([1.0, 1.1, 1.2], 0),  # the same
        ([1.1, 1.3, 1.5], 0),  # slower, but within the range of the runs
        ([1.3, 1.4, 1.5], 2),  # slower, and takes more CPU
        ([0.5, 0.6, 0.7], 0),  # faster
    ],
)
def test_only_what_is_beyond_the_range_of_runs_is_slower(now: list[float], slower: int) -> None:
    found = compare(result(case([1.0, 1.1, 1.2])), result(case(now)))
    assert len(found.slower) == slower


def test_peers_that_get_slower_are_the_machine() -> None:
    peers = [case([n, n, n], ours=False, tool="rclone") for n in (1.0, 2.0)]
    found = compare(result(peers[0]), result(peers[1]))
    assert not found.slower
    assert "the peers took 2.00 times what they took before" in found.lines


def test_more_requests_are_told_whatever_the_time() -> None:
    before, after = (result(case([1.0], requests=[n])) for n in (100, 200))
    found = compare(before, after)
    assert "  upload 1, cachefs: 100 to 200 requests (2.00 times)" in "\n".join(found.lines)
    assert len(found.slower) == 1


def test_each_size_of_a_store_is_compared_with_itself() -> None:
    stores = [case([n], group="store", point=size) for n, size in ((1.0, 100), (9.0, 20_000))]
    assert compare(result(*stores), result(*stores)).lines == [
        "0 of 2 cases got slower or take more"
    ]
    found = compare(result(*stores), result(stores[0], case([99.0], group="store", point=20_000)))
    assert "  upload 1 into a store of 20,000, cachefs: 9 to 99 s (11.00 times)" in found.lines[0]


@pytest.mark.parametrize(("now", "status"), [(1.0, 0), (2.0, 1)])
def test_the_command_tells_by_its_status(
    now: float,
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = [tmp_path / name for name in ("before", "after")]
    for file, seconds in zip(files, (1.0, now), strict=True):
        results.write(result(case([seconds] * 3)), file)
    monkeypatch.setattr("sys.argv", ["benchmarks", "compare", *map(str, files)])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert (ended.value.code or 0) == status
    assert f"{status} of 1 cases got slower" in capsys.readouterr().out


def test_results_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = result(case([1.25], requests=[3]), case([2.5], point=4, bytes=8))
    results.write(written, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == written


def test_a_table_compares_with_the_best_peer_and_leaves_empty_columns_out() -> None:
    ours, peers = case([1.0, 3.0, 2.0]), [case([n], ours=False, tool="peer") for n in (4.0, 8.0)]
    table = text(result(ours, *peers), "upload").splitlines()
    assert table[0] == "| work | tool | seconds | to the best peer | client CPU s | peak MiB |"
    assert table[2] == "| upload 1 | cachefs | 2.00 (1.00 to 3.00) | 0.50 | 2.00 | 50 |"


def test_a_page_keeps_its_own_words() -> None:
    page = "before\n<!-- results: upload -->\nold\n<!-- end -->\nafter\n"
    filled = put_into(page, result(case([1.0])))
    assert filled.startswith("before\n")
    assert filled.endswith("\nafter\n")
    assert "old" not in filled
    assert "| upload 1 |" in filled


def test_the_page_shows_the_committed_results() -> None:
    committed = results.read(ROOT / "benchmarks/results/loopback.json")
    page = (ROOT / command_line.PAGE).read_text()
    assert put_into(page, committed) == page
    for group in ("parallelism", "blobs", "store"):
        assert f"](plots/{group}.svg)" in page
        assert committed.mark(group) in (ROOT / command_line.PLOTS / f"{group}.svg").read_text()


def test_a_plot_is_the_same_for_the_same_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need buildcachefs[bench]")
    from benchmarks.plots import plot

    committed = results.read(ROOT / "benchmarks/results/loopback.json")
    drawn = []
    for name in ("one", "other"):
        plot(committed, tmp_path / name)
        drawn.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()})
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 3
