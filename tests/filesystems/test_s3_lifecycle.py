"""What lifecycle rules mean for a cache."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from cachefs.filesystems.s3.lifecycle import expires_versions, judge

BLOBS, NAMES = "ci/blobs/sha256:", "ci/manifests/"


def verdicts(*rules: dict[str, Any]) -> dict[str, str]:
    found = judge([{"Status": "Enabled", **rule} for rule in rules], BLOBS, NAMES)
    return {one.check: one.verdict for one in found}


def for_keys(prefix: str, **more: Any) -> dict[str, Any]:
    return {"Filter": {"Prefix": prefix}, **more}


ABORT = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}


@pytest.mark.parametrize(
    ("rule", "verdict"),
    [
        (for_keys("", Expiration={"Days": 30}), "mind"),
        (for_keys("ci/", Expiration={"Days": 30}), "mind"),
        (for_keys("ci/", Expiration={"Days": 1}), "bad"),
        (for_keys("ci/blobs/", Expiration={"Days": 365}), "bad"),
        (for_keys("ci/blobs/sha256:0", Expiration={"Days": 365}), "bad"),
        (for_keys("ci/manifests/pr-", Expiration={"Days": 30}), "mind"),
        (for_keys("logs/", Expiration={"Days": 1}), "good"),
        (for_keys("", Expiration={"ExpiredObjectDeleteMarker": True}), "good"),
        (for_keys("", Expiration={"Date": dt.datetime(2027, 1, 1, tzinfo=dt.UTC)}), "bad"),
        ({"Prefix": "ci/blobs", "Expiration": {"Days": 9}}, "bad"),
        ({"Prefix": "", "Expiration": {"Days": 9}}, "mind"),
        ({"Filter": {}, "Expiration": {"Days": 9}}, "mind"),
        ({"Filter": {"Tag": {"Key": "k", "Value": "v"}}, "Expiration": {"Days": 9}}, "good"),
        (
            {
                "Filter": {"And": {"Prefix": "ci/", "Tags": [{"Key": "k", "Value": "v"}]}},
                "Expiration": {"Days": 9},
            },
            "good",
        ),
        (
            {
                "Filter": {"And": {"Prefix": "ci/blobs", "ObjectSizeGreaterThan": 1000}},
                "Expiration": {"Days": 9},
            },
            "bad",
        ),
        ({"Filter": {"ObjectSizeGreaterThan": 1000}, "Expiration": {"Days": 9}}, "mind"),
        (for_keys("", Transitions=[{"Days": 30, "StorageClass": "GLACIER"}]), "bad"),
        (for_keys("", Transitions=[{"Days": 30, "StorageClass": "DEEP_ARCHIVE"}]), "bad"),
        (for_keys("", Transitions=[{"Days": 30, "StorageClass": "STANDARD_IA"}]), "mind"),
        (for_keys("", Transitions=[{"Days": 30, "StorageClass": "GLACIER_IR"}]), "mind"),
        (for_keys("", Transitions=[{"Days": 0, "StorageClass": "INTELLIGENT_TIERING"}]), "good"),
        (for_keys("", NoncurrentVersionExpiration={"NoncurrentDays": 1}), "good"),
        (for_keys("", Status="Disabled", Expiration={"Days": 1}), "good"),
    ],
)
def test_each_rule(rule: dict[str, Any], verdict: str) -> None:
    assert verdicts(rule) == {"lifecycle": verdict, "unfinished uploads": "mind"}


def test_unfinished_uploads() -> None:
    assert verdicts()["unfinished uploads"] == "mind"
    assert verdicts(for_keys("", **ABORT))["unfinished uploads"] == "good"
    assert verdicts(for_keys("ci/", **ABORT))["unfinished uploads"] == "good"
    assert verdicts(for_keys("logs/", **ABORT))["unfinished uploads"] == "mind"
    # Names are sent whole, so uploads in parts are of blobs only.
    assert verdicts(for_keys("ci/manifests/", **ABORT))["unfinished uploads"] == "mind"


def test_each_rule_has_a_finding_that_names_it() -> None:
    rules = [
        {"ID": "old", "Status": "Enabled", **for_keys("", Expiration={"Days": 30})},
        {"Status": "Enabled", **for_keys("ci/", Transitions=[{"StorageClass": "GLACIER"}])},
    ]
    found = [one.found for one in judge(rules, BLOBS, NAMES) if one.check == "lifecycle"]
    assert [text.partition(" deletes")[0].partition(" archives")[0] for text in found] == [
        "rule old",
        "a rule",
    ]


def test_rules_that_delete_versions() -> None:
    rule = {"NoncurrentVersionExpiration": {"NoncurrentDays": 1}, "Status": "Enabled"}
    assert expires_versions([{**rule, **for_keys("")}], BLOBS, NAMES)
    assert not expires_versions([{**rule, **for_keys("logs/")}], BLOBS, NAMES)
    assert not expires_versions([{**rule, **for_keys(""), "Status": "Disabled"}], BLOBS, NAMES)
