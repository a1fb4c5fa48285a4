"""What a user types becomes what a builder would mean, or an error that shows no secret."""

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import cachefs
from cachefs.errors import CacheNameError, LocationError, UsageError
from cachefs.location.attributes import ATTRIBUTES, Attribute
from cachefs.location.keys import check_name
from cachefs.location.kinds import parse_duration
from cachefs.location.masking import Secret
from cachefs.location.options import ExportOptions, Location, OCIOptions
from cachefs.location.parsing import parse
from cachefs.masking import mask_url

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
S3 = "type=s3,bucket=b,region=r"
AZBLOB = "type=azblob,account_url=https://acc.blob.core.windows.net"
LOCAL = "type=local"
FSSPEC = "type=fsspec,url=s3://b/ci/"
REGISTRY = "type=registry,ref=ghcr.io/org/app:cache"
BASES = {
    "s3": S3,
    "azblob": AZBLOB,
    "local": f"{LOCAL},dest=/d",
    "registry": REGISTRY,
    "fsspec": FSSPEC,
}


def located(text: Any, **keywords: Any) -> Location:
    return parse(text, **{"environ": {}} | keywords)


def refused(text: Any, **keywords: Any) -> str:
    with pytest.raises(UsageError) as caught:
        located(text, **keywords)
    return str(caught.value)


# The table: every attribute's default, type and scope, written down a second time

TABLE = {
    ("s3", "bucket"): ("both", None),
    ("s3", "region"): ("both", None),
    ("s3", "name"): ("both", None),
    ("s3", "prefix"): ("both", ""),
    ("s3", "blobs_prefix"): ("both", "blobs/"),
    ("s3", "manifests_prefix"): ("both", "manifests/"),
    ("s3", "endpoint_url"): ("both", None),
    ("s3", "use_path_style"): ("both", False),
    ("s3", "access_key_id"): ("both", None),
    ("s3", "secret_access_key"): ("both", None),
    ("s3", "session_token"): ("both", None),
    ("s3", "retry_mode"): ("both", "standard"),
    ("s3", "retry_max_attempts"): ("both", 3),
    ("s3", "disable_accept_encoding"): ("both", False),
    ("s3", "engine"): ("both", "s3fs"),
    ("s3", "patience"): ("both", None),
    ("s3", "upload_rate"): ("both", None),
    ("s3", "download_rate"): ("both", None),
    ("s3", "upload_parallelism"): ("export", 4),
    ("s3", "touch_refresh"): ("export", 86400.0),
    ("azblob", "account_url"): ("both", None),
    ("azblob", "patience"): ("both", None),
    ("azblob", "upload_rate"): ("both", None),
    ("azblob", "download_rate"): ("both", None),
    ("azblob", "account_name"): ("both", None),
    ("azblob", "container"): ("both", "buildkit-cache"),
    ("s3", "profile"): ("both", None),
    ("s3", "anonymous"): ("both", False),
    ("s3", "acl"): ("both", None),
    ("s3", "server_side_encryption"): ("both", None),
    ("s3", "sse_kms_key_id"): ("both", None),
    ("s3", "storage_class"): ("both", None),
    ("s3", "requester_pays"): ("both", False),
    ("azblob", "name"): ("both", None),
    ("azblob", "prefix"): ("both", ""),
    ("azblob", "blobs_prefix"): ("both", "blobs"),
    ("azblob", "manifests_prefix"): ("both", "manifests"),
    ("azblob", "secret_access_key"): ("both", None),
    ("local", "src"): ("import", None),
    ("local", "dest"): ("export", None),
    ("local", "tag"): ("both", None),
    ("local", "digest"): ("import", None),
    ("local", "compression"): ("export", "gzip"),
    ("local", "compression-level"): ("export", None),
    ("local", "force-compression"): ("export", False),
    ("local", "oci-mediatypes"): ("export", True),
    ("local", "image-manifest"): ("export", None),
    ("local", "reset"): ("export", False),
}
TABLE |= {("fsspec", n): row for (t, n), row in TABLE.items() if t == "s3" and n != "bucket"}
TABLE |= {("fsspec", "url"): ("both", None)}
TABLE |= {
    ("registry", name): TABLE["local", name]
    for name in (
        "compression",
        "compression-level",
        "force-compression",
        "oci-mediatypes",
        "image-manifest",
    )
}
TABLE |= {
    ("registry", "ref"): ("both", None),
    ("registry", "registry.insecure"): ("both", False),
    ("registry", "patience"): ("both", None),
    ("registry", "upload_rate"): ("both", None),
    ("registry", "download_rate"): ("both", None),
}
TABLE |= {(t, "type"): ("both", None) for t in BASES}
TABLE |= {(t, "max_records"): ("both", 1_000_000) for t in BASES}
TABLE |= {
    (t, name): ("both", None)
    for t in BASES
    for name in ("signed_by", "signed_within", "signed_as", "signing_key")
}
TABLE |= {(t, "mode"): ("export", "min") for t in BASES}
TABLE |= {(t, "ignore-error"): ("export", False) for t in BASES}

# A value that is not the default, in text, and what it means.
VALUES: dict[str, tuple[str, Any]] = {
    "name": ("a;b/c", ("a", "b/c")),
    "tag": ("v2", ("v2",)),
    "prefix": ("ci/", "ci/"),
    "blobs_prefix": ("objects/", "objects/"),
    "manifests_prefix": ("refs/", "refs/"),
    "endpoint_url": ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
    "use_path_style": ("T", True),
    "profile": ("dev", "dev"),
    "anonymous": ("true", True),
    "acl": ("public-read", "public-read"),
    "server_side_encryption": ("aws:kms", "aws:kms"),
    "storage_class": ("STANDARD_IA", "STANDARD_IA"),
    "requester_pays": ("true", True),
    "retry_mode": ("adaptive", "adaptive"),
    "retry_max_attempts": ("7", 7),
    "disable_accept_encoding": ("1", True),
    "engine": ("obstore", "obstore"),
    "patience": ("1m30s", 90.0),
    "upload_rate": ("10MiB", 10 * 1024**2),
    "download_rate": ("500kB", 500_000),
    "max_records": ("5000", 5000),
    "signed_by": ("/keys/ci.pub;/keys/trust", ("/keys/ci.pub", "/keys/trust")),
    "signed_within": ("24h", 86400.0),
    "signed_as": ("ours", "ours"),
    "signing_key": ("/keys/ci", "/keys/ci"),
    "account_name": ("other", "other"),
    "container": ("else", "else"),
    "upload_parallelism": ("16", 16),
    "touch_refresh": ("1h30m", 5400.0),
    "mode": ("max", "max"),
    "ignore-error": ("true", True),
    "digest": (DIGEST, DIGEST),
    "compression": ("zstd", "zstd"),
    "compression-level": ("9", 9),
    "force-compression": ("TRUE", True),
    "oci-mediatypes": ("false", False),
    "image-manifest": ("F", False),
    "registry.insecure": ("true", True),
}


def value_of(location: Location, row: Attribute) -> Any:
    if row.group == "names":
        return location.digest if row.name == "digest" else location.names
    if row.name == "container":
        return location.url.removeprefix("abfs://").removesuffix("/")
    if row.group == "trust":
        return getattr(location.signing, row.keyword)
    holder = getattr(location, row.group, location) if row.group != "engine" else location
    return getattr(holder, row.keyword)


def test_the_table_is_the_format_s() -> None:
    assert {
        (t, row.name): (row.scope, row.default) for row in ATTRIBUTES for t in row.types
    } == TABLE
    for row in ATTRIBUTES:
        assert row.about.endswith((".", "`."))
        assert row.kind.words


CASES = [
    pytest.param(type_, row, id=f"{type_}-{row.name}")
    for row in ATTRIBUTES
    for type_ in row.types
    if row.name in VALUES and type_ not in row.keyword_only
]


@pytest.mark.parametrize(("type_", "row"), CASES)
def test_every_attribute_in_text_and_as_keyword(type_: str, row: Attribute) -> None:
    text, meaning = VALUES[row.name]
    base = f"{LOCAL},src=/d" if row.scope == "import" else BASES[type_]
    written = located(f"{base},{row.name}={text}")
    assert value_of(written, row) == meaning
    assert row.name in written.given
    assert located(base, **{row.keyword: text}) == written
    assert (
        located(f"{base},{row.name}={text}", **{row.keyword: meaning_of(row, meaning)}) == written
    )


def meaning_of(row: Attribute, meaning: Any) -> Any:
    """Names as a list; a tag as text; everything else as the Python value it is."""
    return meaning[0] if row.name == "tag" else list(meaning) if row.name == "name" else meaning


@pytest.mark.parametrize(("type_", "row"), CASES)
def test_attributes_of_the_other_side_are_refused(type_: str, row: Attribute) -> None:
    text, _ = VALUES[row.name]
    base = f"{LOCAL},src=/d" if row.scope == "import" else BASES[type_]
    if row.scope == "both":
        neutral = base if type_ == "local" else BASES[type_]
        located(f"{neutral},{row.name}={text}", role="export")
        return
    other = "import" if row.scope == "export" else "export"
    reason = refused(f"{base.replace('dest', 'src')},{row.name}={text}", role=other)
    assert f"belongs to {row.scope}" in reason or "src belongs to import" in reason
    assert "cache-to" in reason or "cache-from" in reason


def test_attributes_of_another_type_say_whose_they_are() -> None:
    assert refused(f"{S3},tag=x") == "tag belongs to type=local, not to type=s3"
    assert refused(f"{AZBLOB},touch_refresh=1h") == (
        "touch_refresh belongs to type=s3 and type=fsspec, not to type=azblob"
    )
    assert "bucket belongs to type=s3" in refused("gs://b/", bucket="b")


def test_a_name_that_is_no_attribute_is_told_the_nearest() -> None:
    assert refused("type=s3,buket=b,region=r") == "unknown attribute 'buket': did you mean bucket?"
    assert "did you mean ignore-error?" in refused(f"{S3},ignore_error=true")
    assert refused(f"{S3},zzz=1") == "unknown attribute 'zzz'"
    assert "did you mean touch_refresh?" in refused("s3://b/", touch_refesh="1h")


def test_nothing_is_given_twice() -> None:
    assert refused(f"{S3},region=r") == "region is given twice"
    assert "different" in refused(S3, region="other")
    assert located(S3, region="r") == located(S3)
    assert located(S3, type="s3") == located(S3)
    assert "type is given twice" in refused("s3://b/", type="s3")


def test_given_names_what_the_user_set() -> None:
    assert located(f"{S3},mode=min", ignore_error=False).given == {
        "bucket", "region", "mode", "ignore-error",
    }  # fmt: skip
    assert located("s3://b/", mode=None).given == frozenset()


# Defaults and the environment


def test_s3_defaults_come_from_the_environment() -> None:
    location = located("type=s3", environ={"AWS_BUCKET": "b", "AWS_REGION": "r"})
    assert location.url == "s3://b/"
    assert location.s3 is not None
    assert location.s3.region == "r"
    assert location.export == ExportOptions()
    assert location.names == ()
    assert located("type=s3,bucket=c,region=q", environ={"AWS_BUCKET": "b"}).url == "s3://c/"
    assert "$AWS_BUCKET" in refused("type=s3,region=r")
    unknown = located("type=s3,bucket=b", environ={"AWS_REGION": ""})
    assert unknown.s3 is not None
    assert unknown.s3.region is None  # the AWS configuration may have one
    assert refused("type=s3,region=r", environ={"AWS_BUCKET": "a/b"}).startswith(
        '$AWS_BUCKET="a/b"'
    )


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ("sse_kms_key_id=k", "sse_kms_key_id needs server_side_encryption=aws:kms"),
        ("sse_kms_key_id=k,server_side_encryption=AES256", "server_side_encryption=aws:kms"),
        ("server_side_encryption=kms", "AES256, aws:kms or aws:kms:dsse"),
        ("anonymous=true,access_key_id=A,secret_access_key=B", "leave access_key_id out"),
        ("anonymous=true,requester_pays=true", "requester_pays=true needs credentials"),
    ],
)
def test_attributes_of_s3_that_contradict_each_other(attributes: str, reason: str) -> None:
    assert reason in refused(f"{S3},{attributes}")
    key = located(f"{S3},sse_kms_key_id=k,server_side_encryption=aws:kms").s3
    assert key is not None
    assert key.sse_kms_key_id == "k"


def test_azblob_defaults_come_from_the_environment() -> None:
    variables = {
        "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL": "https://acc.blob.core.windows.net/",
        "BUILDKIT_AZURE_STORAGE_CONTAINER": "c",
        "BUILDKIT_AZURE_STORAGE_PREFIX": "p",
    }
    location = located("type=azblob", environ=variables)
    assert location.azure is not None
    assert (location.url, location.protocol, location.prefix) == ("abfs://c/", "abfs", "p")
    assert location.azure.account_name == "acc"
    named = located("type=azblob", environ=variables | {"BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME": "n"})
    assert named.azure is not None
    assert named.azure.account_name == "n"
    assert "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL" in refused("type=azblob")
    assert "account_name" in refused("type=azblob,account_url=https://[::1]:10000/a")


def test_os_environ_is_the_default_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "here")
    location = parse("type=s3,bucket=b")
    assert location.s3 is not None
    assert location.s3.region == "here"


def test_engine_attribute_over_environment_over_s3fs() -> None:
    obstore = {"CACHEFS_ENGINE": "obstore"}
    assert located(S3).engine == "s3fs"
    assert located(S3, environ=obstore).engine == "obstore"
    assert located("s3a://b/x", environ=obstore).engine == "obstore"
    assert located(f"{S3},engine=s3fs", environ=obstore).engine == "s3fs"
    assert "$CACHEFS_ENGINE" in refused(S3, environ={"CACHEFS_ENGINE": "boto"})
    for elsewhere in ("gs://b/x", "/d", AZBLOB, BASES["local"]):
        assert located(elsewhere, environ={"CACHEFS_ENGINE": "boto"}).engine == "s3fs"
        refused(elsewhere, engine="s3fs")


# The three forms


@pytest.mark.parametrize(
    ("text", "url", "protocol", "layout"),
    [
        ("s3://bucket/ci", "s3://bucket/ci/", "s3", "keyed"),
        ("s3://bucket/ci/", "s3://bucket/ci/", "s3", "keyed"),
        ("S3://bucket", "s3://bucket/", "s3", "keyed"),
        ("s3a://bucket/a=b,c", "s3a://bucket/a=b,c/", "s3a", "keyed"),
        ("gs://bucket/ci/", "gs://bucket/ci/", "gs", "keyed"),
        ("abfs://box@acc.example/x", "abfs://box@acc.example/x/", "abfs", "keyed"),
        ("memory://x", "memory://x/", "memory", "keyed"),
        ("memory:///x", "memory:///x/", "memory", "keyed"),
        ("sftp://u:p@host:22/x", "sftp://u:p@host:22/x/", "sftp", "keyed"),
        ("hdfs://host/x?replication=1", "hdfs://host/x/?replication=1", "hdfs", "keyed"),
        ("file:///var/cache", "/var/cache/", "file", "auto"),
        ("/var//cache/./", "/var/cache/", "file", "auto"),
        ("//var/x?y#z", "/var/x?y#z/", "file", "auto"),
        ("/", "/", "file", "auto"),
        ("/a=b/c,d", "/a=b/c,d/", "file", "auto"),
        ("type=fsspec,url=/var/cache", "/var/cache/", "file", "auto"),
        ('type=fsspec,"url=s3://b/x,mode=max"', "s3://b/x,mode=max/", "s3", "keyed"),
        ("type=local,src=/var/cache", "/var/cache/", "file", "oci"),
        (S3, "s3://b/", "s3", "keyed"),
        (f"{AZBLOB},container=$web", "abfs://$web/", "abfs", "keyed"),
        (PurePosixPath("/x,mode=max"), "/x,mode=max/", "file", "auto"),
    ],
)  # fmt: skip
def test_forms(text: Any, url: str, protocol: str, layout: str) -> None:
    location = located(text)
    assert (location.url, location.protocol, location.layout_kind) == (url, protocol, layout)


def test_paths_are_relative_to_here_and_to_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert located("cache").url == f"{tmp_path}/cache/"
    assert located("a=b,c").url == f"{tmp_path}/a=b,c/"
    assert located(Path("type=s3,bucket=b")).url == f"{tmp_path}/type=s3,bucket=b/"
    assert located("~/cache").url == "/home/somebody/cache/"
    assert located(Path("~/cache")).url == "/home/somebody/cache/"


def test_fields_are_csv_by_go_s_rules() -> None:
    location = located('type=s3, BUCKET =b,region=r,"name=a,b","prefix=x""y/"')
    assert location.names == ("a,b",)
    assert location.prefix == 'x"y/'
    for malformed in ('"bucket=b', 'bucket="b"', '"name=a"b', "name=a\nb", "name=a\n"):
        assert "CSV" in refused(f"{S3},{malformed}"), malformed
    assert "field 4 is not key=value" in refused(f"{S3},,name=a")
    assert "field 5 is not key=value" in refused(f"{S3},name=a,b")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("bucket=b,region=r", "type= is missing"),
        ("type=gha,scope=x", "write s3, azblob, local, registry or fsspec"),
        ("tpye=s3,bucket=b", "bucket= follows text that is not an attribute"),
        ("s3://b/ci,mode=max", "mode= follows"),
        ("./cache,mode=max", "mode= follows"),
        ("s3://", "bucket"),
        ("s3:///ci", "bucket"),
        ("gs://", "bucket"),
        ("s3://b/x?versionId=3", "query"),
        ("s3://b/a/../c", "'..'"),
        ("s3://b/a//c", "empty component"),
        ("memory://..", "'..'"),
        ("s3://b/a\\c", "backslash"),
        ("s3://b/\x00", "control"),
        ("/a\nb", "control"),
        ("file://var/cache", "file:///var/cache"),
        ("simplecache::s3://b/x", "'::'"),
        ("zip://x::s3://b/y", "'::'"),
        ("type=local,src=/a::b", "'::'"),
        ("type=local", "src=DIR or dest=DIR"),
        ("type=local,src=/a,dest=/b", "both"),
        ("type=fsspec", "needs url"),
        ("type=fsspec,url=s3://b/,region=r", "Python"),
        ("type=fsspec,url=gs://b/,endpoint_url=http://h", "for s3:// URLs only"),
        (f"{S3},access_key_id=a", "belong together"),
        (f"{S3},session_token=a", "needs access_key_id"),
        (f"{S3},touch_refresh=1 day", 'touch_refresh="1 day" is not a duration: write for'),
        (f"{S3},touch_refresh=-1h", "0s or more"),
        (f"{S3},touch_refresh=", "not a duration"),
        (f"{S3},upload_parallelism=0", "1 or more"),
        (f"{S3},upload_parallelism=\uff14", "whole number"),
        (f"{S3},use_path_style=yes", "true or false"),
        (f"{S3},mode=mid", "min or max"),
        (f"{S3},endpoint_url=minio:9000", "https://host:9000"),
        ("type=s3,bucket=b/c,region=r", "bucket"),
        ("type=s3,bucket=b,region=", "is empty"),
        (f"{S3},name=a;", "is empty"),
        (f"{S3},prefix=../", "'..'"),
        (f"{S3},prefix=.,blobs_prefix=./,manifests_prefix=m", "'..'"),
        (f"{S3},prefix=//ci/", "begins with '/'"),
        (f"{S3},prefix=ci//", "empty component"),
        (f"{S3},manifests_prefix=:,name=:a", "'::'"),
        (f"{AZBLOB},prefix=a/../b", "'..'"),
        ("type=local,dest=/d,reset=true", "cachefs prune"),
        ("type=local,dest=/d,compression=estargz", "not supported"),
        ("type=local,dest=/d,compression-level=10", "levels 0 to 9"),
        ("type=local,dest=/d,compression=uncompressed,compression-level=1", "no levels"),
        ("type=local,dest=/d,oci-mediatypes=false,image-manifest=true", "needs oci-media"),
        ("type=local,src=/d,digest=sha256:../x", "64"),
    ],
)  # fmt: skip
def test_refusals_say_what_would_be_right(text: str, reason: str) -> None:
    assert reason in refused(text)


@pytest.mark.parametrize(
    ("keywords", "reason"),
    [
        ({"touch_refresh": True}, "not a duration"),
        ({"touch_refresh": math.nan}, "0s or more"),
        ({"touch_refresh": 10**400}, "0s or more"),
        ({"touch_refresh": timedelta(-1)}, "0s or more"),
        ({"upload_parallelism": True}, "whole number"),
        ({"upload_parallelism": -(10**5000)}, "1 or more"),
        ({"name": []}, "list of names"),
        ({"name": ["a;b"]}, "';'"),
        ({"name": [1]}, "list of names"),
        ({"ignore_error": 1}, "true or false"),
        ({"region": 3}, "not text"),
        ({"storage_options": "key"}, "mapping"),
    ],
)
def test_python_values_that_are_none(keywords: dict[str, Any], reason: str) -> None:
    assert reason in refused("s3://b/", **keywords)
    assert "text or a path" in refused(3)


def test_python_values() -> None:
    location = located(
        "s3://b/ci", touch_refresh=timedelta(hours=1), name=["a", "b", "a"], region="r",
        access_key_id="AKIA", secret_access_key=Secret("key"), mode="max", ignore_error=True,
    )  # fmt: skip
    assert location.export == ExportOptions(touch_refresh=3600.0, mode="max", ignore_error=True)
    assert location.names == ("a", "b")
    assert location.s3 is not None
    assert location.s3.access_key_id == Secret("AKIA")
    assert location.s3.secret_access_key == Secret("key")
    assert located("/d", touch_refresh=0).export.touch_refresh == 0


def test_empty_optional_text_is_not_set() -> None:
    """A variable that a CI did not set leaves an empty value; builders take that as absent."""
    location = located(f"{S3},endpoint_url=,access_key_id=,secret_access_key=,session_token=")
    assert location == located(S3)


def test_local_options() -> None:
    assert located("type=local,dest=/d").oci == OCIOptions()
    docker = located("type=local,dest=/d,oci-mediatypes=false,reset=false").oci
    assert docker == OCIOptions(oci_mediatypes=False, image_manifest=False)
    location = located(f"type=local,src=/d,digest={DIGEST}", role="import")
    assert (location.digest, location.names) == (DIGEST, ())
    assert "src=DIR" in refused("type=local", role="import")
    assert "dest=DIR" in refused("type=local", role="export")
    assert "src belongs to import (cache-from)" in refused("type=local,src=/d", role="export")
    assert "dest belongs to export (cache-to)" in refused("type=local,dest=/d", role="import")


# Keys and names


@pytest.mark.parametrize(
    ("text", "blobs", "manifests"),
    [
        (S3, "blobs/", "manifests/"),
        (f"{S3},prefix=ci/", "ci/blobs/", "ci/manifests/"),
        (f"{S3},prefix=ci", "ciblobs/", "cimanifests/"),
        (f"{S3},prefix=ci,blobs_prefix=/b-", "ci/b-", "cimanifests/"),
        (f"{S3},blobs_prefix=,manifests_prefix=", "", ""),
        (AZBLOB, "blobs/", "manifests/"),
        (f"{AZBLOB},prefix=ci", "ci/blobs/", "ci/manifests/"),
        (f"{AZBLOB},prefix=ci//x/,blobs_prefix=/b/", "ci/x/b/", "ci/x/manifests/"),
        (f"{AZBLOB},blobs_prefix=,manifests_prefix=", "", ""),
        ("s3://b/ci/", "blobs/", "manifests/"),
        ("type=local,src=/d", "", ""),
    ],
)
def test_prefixes_join_as_the_builder_joins_them(text: str, blobs: str, manifests: str) -> None:
    location = located(text)
    assert (location.blobs, location.manifests) == (blobs, manifests)


GOOD = [
    "main",
    "team/app",
    "v1.2",
    "a b",
    "ü",
    "100%",
    "a+b~c",
    "*[x]?",
    "..a",
    ".a",
    "a..",
    "a:b",
    "x" * 255,
]
BAD = ["", "/x", "x/", "a//b", ".", "..", "../x", "a/../b", "a/./b", "a/..", "a\\b", "a::b", "a\nb",
       "\x00", "\x7f", "a?versionId=3", "x" * 256, "ü" * 128, "\ud800"]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_names_that_builders_allow(name: str) -> None:
    assert check_name(name) == name
    assert located(S3, name=[name]).names == (name,)


@pytest.mark.parametrize("name", BAD)
def test_names_that_would_not_stay_what_they_are(name: str) -> None:
    with pytest.raises(CacheNameError):
        check_name(name)
    with pytest.raises(CacheNameError):
        located(S3).with_names(["good", name])
    with pytest.raises(UsageError):
        located(S3, name=[name])


def accepted(name: str) -> bool:
    try:
        check_name(name)
    except CacheNameError:
        return False
    return True


@given(st.text().filter(accepted))
def test_an_accepted_name_stays_below_its_root(name: str) -> None:
    assert os.path.normpath(f"/root/manifests/{name}") == f"/root/manifests/{name}"
    assert name.encode().decode() == name


@given(
    st.text("./a:\\", max_size=6),
    st.text("./a:\\", max_size=6),
    st.text("./a:\\", min_size=1, max_size=6),
)
def test_prefixes_and_names_together_stay_below_the_root(prefix: str, part: str, name: str) -> None:
    for base in (S3, AZBLOB):
        try:
            location = located(
                base, prefix=prefix, blobs_prefix=part, manifests_prefix=part, name=name
            )
        except UsageError:
            continue
        for whole in (location.manifests + name, location.blobs + DIGEST):
            key = whole.removeprefix("/")  # builders keep a slash at the beginning
            assert os.path.normpath(f"/root/{key}") == f"/root/{key}"
            assert "\\" not in key
            assert "::" not in key


def test_with_names_changes_nothing_else() -> None:
    location = located(f"{S3},name=a")
    assert location.with_names(["x", "y", "x"]).names == ("x", "y")
    assert location.with_names("a") == location
    assert location.with_names(()).names == ()


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86400), ("90m", 5400), ("1h30m", 5400), ("0s", 0), ("0", 0), ("1.5h", 5400),
        ("300ms", 0.3), ("5us", 5e-6), ("5\u00b5s", 5e-6), ("5\u03bcs", 5e-6), ("2ns", 2e-9),
        (".5s", 0.5), ("1.s", 1), ("+1m", 60), ("-1m", -60), ("1m1ms", 60.001),
        ("2562047h", 2562047 * 3600),
    ],
)  # fmt: skip
def test_durations_are_go_s(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "h",
        ".s",
        "1 h",
        "1d",
        "1h-2m",
        "\u0661s",
        "1e3s",
        "2562048h",
        "9" * 5000 + "s",
        "1h\n",
    ],
)
def test_what_go_refuses_as_a_duration(text: str) -> None:
    with pytest.raises(LocationError, match="duration"):
        parse_duration(text)


@given(
    st.lists(
        st.tuples(st.integers(0, 9999), st.sampled_from(["ns", "us", "ms", "s", "m", "h"])),
        min_size=1,
    )
)
def test_a_duration_is_the_sum_of_its_terms(terms: list[tuple[int, str]]) -> None:
    text = "".join(f"{number}{unit}" for number, unit in terms)
    apart = math.fsum(parse_duration(f"{number}{unit}") for number, unit in terms)
    assert parse_duration(text) == pytest.approx(apart)


# Secrets


def quoted_field(name: str, value: str) -> str:
    return '"{}={}"'.format(name, value.replace('"', '""'))


SECRETS = st.text(min_size=6).map(lambda text: f"{text}Sec/ret+{text}=")
SECRET_NAMES = st.sampled_from([row.name for row in ATTRIBUTES if row.secret])


def shown(text: Any, **keywords: Any) -> str:
    """All that a user or a log could see of a call: the location, or the error and its causes."""
    try:
        location = located(text, **keywords)
    except UsageError as error:
        return "".join(traceback.format_exception(error)) + repr(error)
    parts = (location, location.s3, location.azure)
    return " ".join(f"{part} {part!r} {part!s:>9}" for part in parts)


def shows(secret: str, text: Any, **keywords: Any) -> bool:
    """Whether the secret can be seen, as it is or as a repr escapes it."""
    seen = shown(text, **keywords)
    return secret in seen or repr(secret)[1:-1] in seen


def travelled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own bytes


def test_a_secret_shows_nowhere_and_travels() -> None:
    secret = Secret("hunter2")
    assert {repr(secret), str(secret), f"{secret}", f"{secret!r}", f"{secret:<3}"} == {"***"}
    assert secret == Secret("hunter2") != Secret("other")
    assert secret != "hunter2"
    assert len({secret, Secret("hunter2")}) == 1
    for again in (travelled(secret), copy.deepcopy(secret)):
        assert again.reveal() == "hunter2"


@given(SECRETS, SECRET_NAMES, st.booleans())
@example("a\nbcdef", "session_token", True)
@example('abc"def', "secret_access_key", False)
def test_secret_attributes_never_show(secret: str, name: str, well_formed: bool) -> None:
    field = quoted_field(name, secret) if well_formed else f"{name}={secret}"
    for text in (
        f"{S3},access_key_id=x,{field}", f"{S3},{field},bogus=1", f"{AZBLOB},{field}",
        f"{field},{S3}", f"type=s3,{name}:{secret}", f"{FSSPEC},{field}", f"/path,{field}",
        f"s3://b/x,{field}",
    ):  # fmt: skip
        assert not shows(secret, text)
    for text in ("s3://b/x", S3, "gs://b/"):
        assert not shows(secret, text, **{name: secret})
    assert not shows(secret, "s3://b/", storage_options={"key": secret})


@given(st.text().map(lambda text: f"{text}Pass/word{text}"))
@example("p?w#Pass")
@example("//p@w:Pass")
@example("line\nPass")
def test_passwords_and_signatures_in_urls_never_show(password: str) -> None:
    for url in (
        f"sftp://me:{password}@host/x", f"sftp://me@corp.example:{password}@host/x",
        f"ftp://:{password}@h", f"https://acc.blob.example/?sig={password}",
        f"simplecache::sftp://u:{password}@h/x", f"s3://u:{password}@b/x",
    ):  # fmt: skip
        assert password not in mask_url(url)
        assert not shows(password, url)
        for text in (
            f"type=fsspec,{quoted_field('url', url)}", f"{S3},{quoted_field('endpoint_url', url)}",
            f"type=azblob,{quoted_field('account_url', url)}",
            f"{S3},{quoted_field('touch_refresh', url)}",
        ):  # fmt: skip
            assert not shows(password, text)


def test_an_endpoint_without_its_scheme_is_masked_too() -> None:
    assert not shows("hunter2", f"{S3},endpoint_url=me:hunter2@host:9000")


def test_a_url_keeps_its_password_for_the_library_and_hides_it_from_people() -> None:
    location = located("sftp://me:hunter2@host/ci?x=hunter2")
    assert location.url == "sftp://me:hunter2@host/ci/?x=hunter2"
    assert str(location) == "sftp://me:***@host/ci/"
    assert "hunter2" not in repr(location)


def test_str_is_short_and_known_to_the_user() -> None:
    assert str(located(f"{S3},prefix=ci/")) == "s3://b/ci/"
    assert str(located(f"{AZBLOB},prefix=ci")) == "abfs://buildkit-cache/ci"
    assert str(located("/var/a?b:c@d")) == "/var/a?b:c@d/"
    assert str(located("memory://x")) == "memory://x/"


def test_repr_looks_like_a_dataclass_s() -> None:
    shown = repr(located(f"{S3},access_key_id=A,secret_access_key=B", storage_options={"x": "C"}))
    assert shown.startswith("Location(type='s3', url='s3://b/', protocol='s3'")
    assert "access_key_id=***" in shown
    assert "storage_options" not in shown


def test_a_location_travels_to_a_worker() -> None:
    text = f"{S3},access_key_id=A,secret_access_key=B"
    location = located(text, storage_options={"anon": False})
    again = travelled(location)
    assert again == location
    assert hash(again) == hash(location)
    assert again.s3.secret_access_key.reveal() == "B"


# Robustness

PIECES = st.sampled_from(
    [*(f"{row.name}=" for row in ATTRIBUTES), *(f"type={t}" for t in BASES), "s3://", "sftp://",
     "file://", "memory://", ",", ";", '"', '""', "/", "..", "::", "?", "@", ":", "=", "~", "b",
     "1h", "true", "\n", "\x00"]
)  # fmt: skip


@given(
    st.one_of(st.text(), st.lists(st.one_of(PIECES, st.text(max_size=3)), max_size=12).map("".join))
)
@example("type=s3," * 3)
@example("https://[")
@example("type=azblob,account_url=https://[::")
@example(f"{S3},retry_max_attempts={'9' * 5000}")
@example(f"{S3},prefix={'x' * 200_000}")
@example("'" + "1" * 100_000)
def test_no_text_raises_anything_but_a_usage_error(text: str) -> None:
    for role in (None, "import", "export"):
        try:
            location = located(text, role=role)
        except UsageError:
            continue
        assert location.url.partition("?")[0].endswith("/") or location.protocol == "file"
        assert travelled(location) == location


PLAIN = st.text(
    st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="/\\:?"), max_size=20
)


@given(
    PLAIN.filter(lambda text: text not in (".", "..")),
    PLAIN.filter(lambda t: t.strip(".") and ";" not in t),
)
def test_quoted_fields_come_back_as_they_were(prefix: str, name: str) -> None:
    text = f"{S3},{quoted_field('prefix', prefix)},{quoted_field('name', name)}"
    location = located(text)
    assert (location.prefix, location.names) == (prefix, (name,))
    assert located(S3, prefix=prefix, name=[name]) == location


def test_importing_the_parser_s_modules_is_cheap() -> None:
    """Nothing that the parser itself imports belongs to fsspec or to a store's library."""
    code = (
        "import sys, types; package = types.ModuleType('cachefs'); package.__path__ = sys.argv[1:];"
        "sys.modules['cachefs'] = package; import cachefs.location.parsing;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    folder = Path(cachefs.__file__ or "").parent
    run = [sys.executable, "-c", code, str(folder)]
    loaded = subprocess.run(run, check=True, capture_output=True, text=True).stdout.split()
    assert not {"fsspec", "s3fs", "obstore", "botocore", "click", "rich", "asyncio"} & set(loaded)
