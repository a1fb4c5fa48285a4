"""Both engines say the same about what an S3 server refuses, for whatever request."""

from __future__ import annotations

import re
from email.message import Message
from pathlib import Path

import pytest

import cachefs
from tests.servers.answering import EMPTY_LISTING, Answer, answering, refusal

ABSENT = Answer(404, b"")
DAMAGED = "the bytes were damaged on their way to the store, which refused them"
REFUSED = [
    (403, "AccessDenied", "access is denied: check the credentials; this needs s3:PutObject"),
    (400, "BadDigest", DAMAGED),
    (400, "XAmzContentSHA256Mismatch", DAMAGED),
    (404, "NoSuchBucket", "there is no such bucket: create it, or check its name and the endpoint"),
    (503, "SlowDown", "the store throttles requests: wait, then try retry_mode=adaptive"),
    (500, "InternalError", "the store had a fault of its own: try again later"),
    (405, "MethodNotAllowed", "the server does not support this request"),
    (501, "NotImplemented", "the server does not support this request"),
    (403, "QuotaExceeded", "the store has no space left, or its quota is used up"),
    (507, "InsufficientStorage", "the store has no space left, or its quota is used up"),
    (409, "OperationAborted", "the store failed: OperationAborted: It says OperationAborted."),
    (418, "NeverHeardOf", "the store failed: NeverHeardOf: It says NeverHeardOf."),
]


def upload_error(engine: str, refused: Answer, recorded: Path) -> cachefs.StoreError:
    """The error of a copy to a server that lists and looks up, but takes no objects."""

    def answer(headers: Message) -> Answer:
        if headers.get("Content-Length", "0") != "0":
            return refused
        # A listing is of the bucket, a look-up of an object.
        return EMPTY_LISTING if headers["x-asked"].startswith("/b?") else ABSENT

    with answering(answer) as server:
        cache = cachefs.open(server.attributes("b", engine=engine, retry_max_attempts="1"))
        with pytest.raises(cachefs.StoreError) as raised:
            cachefs.copy(recorded / "s3" / "max", cache)
    return raised.value


@pytest.mark.parametrize(("status", "code", "words"), REFUSED)
def test_a_refused_upload(status: int, code: str, words: str, recorded: Path) -> None:
    errors = [
        upload_error(engine, refusal(status, code), recorded) for engine in ("s3fs", "obstore")
    ]
    texts = [re.sub("sha256:[0-9a-f]+", "BLOB", str(error)) for error in errors]
    assert texts[0] == texts[1]
    assert texts[0].startswith(f"upload target b/blobs/BLOB: {words}")
    assert type(errors[0]) is type(errors[1])
