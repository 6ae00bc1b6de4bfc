"""A stock gRPC client in Python: login, upload in three calls, download and compare, error details. Its code is generated from the contract.

Arguments: ADDRESS GENERATED_FOLDER FILE [CA_FILE]. The password comes on standard input. Prints one JSON object.
"""

import hashlib
import json
import sys

address, generated, path = sys.argv[1:4]
sys.path.insert(0, generated)

import grpc  # noqa: E402
from google.rpc import error_details_pb2  # noqa: E402
from strongroom.v1 import session_service_pb2 as session  # noqa: E402
from strongroom.v1 import session_service_pb2_grpc as session_grpc  # noqa: E402
from strongroom.v1 import upload_service_pb2 as upload  # noqa: E402
from strongroom.v1 import upload_service_pb2_grpc as upload_grpc  # noqa: E402
from strongroom.v1 import version_service_pb2 as version  # noqa: E402
from strongroom.v1 import version_service_pb2_grpc as version_grpc  # noqa: E402


def details_of(error):
    """The google.rpc details of an error, by type; google.rpc.Status is read by hand: field 3 holds each as google.protobuf.Any."""
    status = dict(error.trailing_metadata())["grpc-status-details-bin"]
    from google.protobuf import any_pb2

    found, rest = {}, memoryview(status)
    while rest:
        field, rest = rest[0] >> 3, rest[1:] if rest[0] & 7 == 2 else rest[1:]
        length, shift = 0, 0
        if field == 1:  # code, a varint
            while rest[0] & 0x80:
                rest = rest[1:]
            rest = rest[1:]
            continue
        while True:
            byte, rest = rest[0], rest[1:]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        if field == 3:
            detail = any_pb2.Any.FromString(bytes(rest[:length]))
            name = detail.type_url.rsplit(".", 1)[1]
            found[name] = getattr(error_details_pb2, name).FromString(detail.value)
        rest = rest[length:]
    return found


if len(sys.argv) > 4:
    with open(sys.argv[4], "rb") as file:
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()))
else:
    channel = grpc.insecure_channel(address)

password = sys.stdin.read().strip()
login = session_grpc.SessionServiceStub(channel).Login(session.LoginRequest(username="admin", password=password))
auth = [("authorization", f"Bearer {login.token}")]
uploads = upload_grpc.UploadServiceStub(channel)
versions = version_grpc.VersionServiceStub(channel)

with open(path, "rb") as file:
    dump = file.read()
begun = uploads.CreateUpload(upload.CreateUploadRequest(collection="db", request_id="python"), metadata=auth).upload
digests = b""


def frames(index, segment):
    header = upload.SegmentHeader(
        upload_id=begun.upload_id, index=index, size_bytes=len(segment), sha256=hashlib.sha256(segment).digest()
    )
    yield upload.WriteSegmentRequest(header=header)
    for at in range(0, len(segment), begun.max_chunk_size_bytes):
        yield upload.WriteSegmentRequest(chunk=segment[at : at + begun.max_chunk_size_bytes])


for index, at in enumerate(range(0, len(dump), begun.segment_size_bytes)):
    segment = dump[at : at + begun.segment_size_bytes]
    uploads.WriteSegment(frames(index, segment), metadata=auth)
    digests += hashlib.sha256(segment).digest()
committed = uploads.CommitUpload(
    upload.CommitUploadRequest(
        upload_id=begun.upload_id, size_bytes=len(dump), composite_sha256=hashlib.sha256(digests).digest()
    ),
    metadata=auth,
).version

read = b""
for answer in versions.ReadVersion(version.ReadVersionRequest(collection="db", number=committed.number), metadata=auth):
    read += answer.chunk

quota = None
try:
    uploads.CreateUpload(upload.CreateUploadRequest(collection="db", expected_size_bytes=1 << 50), metadata=auth)
except grpc.RpcError as error:
    found = details_of(error)
    quota = {
        "code": error.code().name,
        "reason": found["ErrorInfo"].reason,
        "subject": found["QuotaFailure"].violations[0].subject,
    }

print(json.dumps({"number": committed.number, "same": read == dump, "quota": quota}))
