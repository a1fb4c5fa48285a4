"""The policies in docs/trust.md make lanes: who may write where, as IAM evaluates them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.iam.policy_validation import IAMPolicyDocumentValidator

PAGE = Path(__file__).parents[2] / "docs" / "trust.md"
POLICIES = dict(
    re.findall(r"<!-- policy: (.+?) -->\n```json\n(.+?)```", PAGE.read_text(), re.DOTALL)
)
MANIFEST, SIGNATURE = "manifests/main", "signatures/sha256:1/2/3"


def may(policy: str, action: str, key: str) -> bool:
    found = IAMPolicy(POLICIES[policy]).is_action_permitted(action, f"arn:aws:s3:::builds/{key}")
    return found is PermissionResult.PERMITTED


@pytest.mark.parametrize("policy", ["pull requests", "promote"])
def test_a_policy_is_valid_and_lists_nothing_but_the_lanes(policy: str) -> None:
    IAMPolicyDocumentValidator(POLICIES[policy]).validate()
    # moto evaluates no such conditions, so this one is read.
    (listing,) = (
        each
        for each in json.loads(POLICIES[policy])["Statement"]
        if each["Action"] == ["s3:ListBucket"]
    )
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["lanes/pr/*", "trusted/*"]}}


@pytest.mark.parametrize("what", [MANIFEST, SIGNATURE, "blobs/sha256:1"])
@pytest.mark.parametrize(
    ("policy", "lane"), [("pull requests", "lanes/pr"), ("promote", "trusted")]
)
def test_each_writes_to_its_own_lane_and_deletes_nothing(policy: str, lane: str, what: str) -> None:
    for each in ("lanes/pr", "trusted"):
        assert may(policy, "s3:GetObject", f"{each}/{what}")
        assert may(policy, "s3:PutObject", f"{each}/{what}") is (each == lane)
        assert not may(policy, "s3:DeleteObject", f"{each}/{what}")
    for action in ("s3:GetObject", "s3:PutObject"):
        assert not may(policy, action, f"elsewhere/{what}")
    assert not may(policy, "s3:PutBucketPolicy", "")
