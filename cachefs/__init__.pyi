from .amount import Amount
from .between import copy, merge, plan_copy, plan_merge, plan_promote, promote
from .building.build import Build
from .building.report import BuildReport, StepReport
from .building.steps import Part, Source, Step, StepError
from .cache import Cache, open
from .calls.cached import Cached, CallStatistics, cached
from .calls.serializers import Array, Files, Json, Pickle, Serializer, Table
from .digest import Digest
from .errors import (
    AccessError,
    ArchivedError,
    CacheError,
    CacheNameError,
    ConflictError,
    DigestError,
    IntegrityError,
    LocationError,
    ManifestError,
    NoCacheError,
    NotFoundError,
    StoreError,
    UnreachableError,
    UntrustedError,
    UsageError,
)
from .filesystems.findings import Finding
from .graph import Found, Key, Matches, RecordGraph, output_key
from .inside.contents import Contents, Entry, Whiteout
from .inside.results import ResultDetails, look_inside
from .layout.base import Manifest, NamedManifest
from .location.options import Location
from .operations.backup import Backup
from .operations.copy import CopyError, CopyPlan
from .operations.delete import BlobRemoval
from .operations.describe import DescribedResult
from .operations.diff import CacheDiff, Change, Divergence, NamesDiff
from .operations.doctor import Examination, Speed
from .operations.inspect import LayerDetails, NameDetails, NameSummary, RecordDetails
from .operations.merge import MergedName, MergePlan
from .operations.plan import Plan
from .operations.promote import PromotePlan, PromoteReport
from .operations.prune import Leftover, MissingBlobs, NameRemoval, PrunePlan, PruneReport
from .operations.publication import Publication
from .operations.repair import Fetch, RepairPlan, RepairReport
from .operations.retention import PrunePolicy
from .operations.undo import UndoPlan, UndoReport
from .operations.usage import AgeClass, CacheUsage, NameUsage
from .operations.verify import Fault, VerifyReport
from .transfer.exporter import ExportReport
from .transfer.importer import CachedResult, Miss
from .transfer.sources import BlobSource
from .user_cache.statistics import Saving
from .wire.cacheconfig import LayerIndex, RecordIndex
from .wire.description import Description

__version__: str

__all__ = [
    "AccessError",
    "AgeClass",
    "Amount",
    "ArchivedError",
    "Array",
    "Backup",
    "BlobRemoval",
    "BlobSource",
    "Build",
    "BuildReport",
    "Cache",
    "CacheDiff",
    "CacheError",
    "CacheNameError",
    "CacheUsage",
    "Cached",
    "CachedResult",
    "CallStatistics",
    "Change",
    "ConflictError",
    "Contents",
    "CopyError",
    "CopyPlan",
    "DescribedResult",
    "Description",
    "Digest",
    "DigestError",
    "Divergence",
    "Entry",
    "Examination",
    "ExportReport",
    "Fault",
    "Fetch",
    "Files",
    "Finding",
    "Found",
    "IntegrityError",
    "Json",
    "Key",
    "LayerDetails",
    "LayerIndex",
    "Leftover",
    "Location",
    "LocationError",
    "Manifest",
    "ManifestError",
    "Matches",
    "MergePlan",
    "MergedName",
    "Miss",
    "MissingBlobs",
    "NameDetails",
    "NameRemoval",
    "NameSummary",
    "NameUsage",
    "NamedManifest",
    "NamesDiff",
    "NoCacheError",
    "NotFoundError",
    "Part",
    "Pickle",
    "Plan",
    "PromotePlan",
    "PromoteReport",
    "PrunePlan",
    "PrunePolicy",
    "PruneReport",
    "Publication",
    "RecordDetails",
    "RecordGraph",
    "RecordIndex",
    "RepairPlan",
    "RepairReport",
    "ResultDetails",
    "Saving",
    "Serializer",
    "Source",
    "Speed",
    "Step",
    "StepError",
    "StepReport",
    "StoreError",
    "Table",
    "UndoPlan",
    "UndoReport",
    "UnreachableError",
    "UntrustedError",
    "UsageError",
    "VerifyReport",
    "Whiteout",
    "cached",
    "copy",
    "look_inside",
    "merge",
    "open",
    "output_key",
    "plan_copy",
    "plan_merge",
    "plan_promote",
    "promote",
]
