"""Verifying, pruning and repairing: a plan, which is plain data, and then its execution."""

from __future__ import annotations

from typing import Never, assert_type

import cachefs

cache = cachefs.open("s3://bucket/ci/")

verified = cache.verify("app", read_data=0.05)
assert_type(verified, cachefs.VerifyReport)
assert_type(verified.faults, list[cachefs.Fault])
for fault in verified.faults:
    # Every kind is named: the types end here, so that a new kind shows up as an error below.
    match fault.kind:
        case "manifest" | "refused" | "missing" | "archived" | "damaged" | "size":
            pass
        case other:
            assert_type(other, Never)

policy = cachefs.PrunePolicy(keep_last={"pr-*": 3}, older_than=7 * 86_400, keep=("main",))
plan = cache.plan_prune(policy, also=[cache], grace=3600)
assert_type(plan, cachefs.PrunePlan)
assert_type(plan.remove, list[cachefs.NameRemoval])
assert_type(plan.missing_blobs, list[cachefs.MissingBlobs])
assert_type(plan.delete, list[cachefs.BlobRemoval])
assert_type(plan.leftovers, list[cachefs.Leftover])
assert_type(plan.is_empty, bool)
assert_type(plan.execute(), cachefs.PruneReport)

repair = cache.plan_repair(["mirror", cachefs.open("other")], remove_unreadable=True)
assert_type(repair, cachefs.RepairPlan)
assert_type(repair.execute(), cachefs.RepairReport)
