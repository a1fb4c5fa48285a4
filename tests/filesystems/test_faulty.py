"""The published contract can fail: each fault of a filesystem breaks the promise that it should."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from pathlib import Path

import pytest

HERE = Path(__file__).parent

Failures = dict[str, dict[str, str]]

FAULTS = [
    ("HalfWritten", "test_a_reader_sees_the_old_or_the_new[1048576]", "not 524288"),
    ("EmptyingTouch", "test_touching_renews_the_time_and_keeps_the_bytes", "keeps the bytes"),
    ("IdleTouch", "test_touching_renews_the_time_and_keeps_the_bytes", "renews the time"),
    ("ForgetfulListing", "test_a_prefix_is_text_not_a_folder", "the listing of 'blobs"),
    ("StaleListing", "test_deleting", "only one object is deleted"),
    ("RefusingMove", "test_a_write_replaces", "File exists|a file is in the way|key"),
    ("LostOffset", "test_what_is_written_is_read[41943040]", "more than the 41943040 bytes"),
    ("DecodingKeys", "test_names_with_odd_characters", "keys are kept"),
    ("GreedyDelete", "test_deleting", "only one object is deleted"),
    ("PrefixDelete", "test_deleting", "only one object is deleted"),
    ("SilentMiss", "test_a_missing_object_is_not_found", "DID NOT RAISE"),
    ("WithoutTimes", "test_a_listing_says_what_stat_says", "has_times = False"),
    ("NotOverridden", "test_deleting", "override the fixture 'filesystem'"),
]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Failures:
    """By class of tests, the message of each test that failed."""
    report = tmp_path_factory.mktemp("faulty") / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider"]
    module = HERE / "faulty_filesystems.py"
    tests = [f"{module}::TestSound", *(f"{module}::Test{kind}::{test}" for kind, test, _ in FAULTS)]
    done = subprocess.run(
        [*command, f"--junitxml={report}", *tests],
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    found: Failures = defaultdict(dict)
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest has written it just now
        for failure in [*case.iter("failure"), *case.iter("error")]:
            kind = case.attrib["classname"].rpartition(".")[2]
            found[kind][case.attrib["name"]] = failure.attrib["message"]
    return found


def test_a_sound_filesystem_keeps_all_promises(failures: Failures) -> None:
    assert "TestSound" not in failures


@pytest.mark.parametrize(("fault", "test", "message"), FAULTS)
def test_a_fault_is_found_and_named(
    fault: str, test: str, message: str, failures: Failures
) -> None:
    found = failures[f"Test{fault}"]
    assert test in found, sorted(found)
    assert re.search(message, found[test]), found[test]


def test_pytest_is_needed_and_the_error_says_so() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None; import cachefs.testing\n"
        "try:\n    import cachefs.testing.contract\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "cachefs.testing.contract needs pytest: pip install pytest\n"
