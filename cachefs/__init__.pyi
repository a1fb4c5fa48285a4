from .building.build import Build
from .building.report import BuildReport, StepReport
from .building.steps import Part, Source, Step, StepError
from .cache import Cache, CachedResult, copy, execute_merge, merge_names, open, plan_merge
from .copying import CopyError
from .differing import CacheDiff, Change, Parting
from .digest import Digest
from .errors import (
    AccessError,
    CacheError,
    CacheNameError,
    DigestError,
    IntegrityError,
    LocationError,
    ManifestError,
    NotFoundError,
    StoreError,
    UnreachableError,
    UsageError,
)
from .exporter import Amount, ExportReport
from .graph import Found, Key, RecordGraph, merge, output_key
from .importer import Miss
from .inspecting import LayerDetails, NameDetails, NameSummary, RecordDetails
from .layout import Manifest, Name
from .location import Location
from .merging import MergedName, MergePlan
from .policies import PrunePolicy
from .pruning import BlobToGo, BrokenName, Leftover, NameToGo, PrunePlan, PruneReport
from .repairing import Fetch, Publication, RepairPlan, RepairReport
from .sources import BlobSource
from .usage import AgeClass, CacheUsage, NameUsage
from .verifying import Fault, VerifyReport

__version__: str

__all__ = [
    "AccessError",
    "AgeClass",
    "Amount",
    "BlobSource",
    "BlobToGo",
    "BrokenName",
    "Build",
    "BuildReport",
    "Cache",
    "CacheDiff",
    "CacheError",
    "CacheNameError",
    "CacheUsage",
    "CachedResult",
    "Change",
    "CopyError",
    "Digest",
    "DigestError",
    "ExportReport",
    "Fault",
    "Fetch",
    "Found",
    "IntegrityError",
    "Key",
    "LayerDetails",
    "Leftover",
    "Location",
    "LocationError",
    "Manifest",
    "ManifestError",
    "MergePlan",
    "MergedName",
    "Miss",
    "Name",
    "NameDetails",
    "NameSummary",
    "NameToGo",
    "NameUsage",
    "NotFoundError",
    "Part",
    "Parting",
    "PrunePlan",
    "PrunePolicy",
    "PruneReport",
    "Publication",
    "RecordDetails",
    "RecordGraph",
    "RepairPlan",
    "RepairReport",
    "Source",
    "Step",
    "StepError",
    "StepReport",
    "StoreError",
    "UnreachableError",
    "UsageError",
    "VerifyReport",
    "copy",
    "execute_merge",
    "merge",
    "merge_names",
    "open",
    "output_key",
    "plan_merge",
]
