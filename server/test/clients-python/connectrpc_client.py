"""Calls a server with connectrpc as it is out of the box, which packs every request with gzip. Arguments: URL, descriptor set. The password is read."""

import json
import sys

from connectrpc.client import ConnectClientSync
from connectrpc.compat import google_protobuf_binary_codec
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

url, descriptors = sys.argv[1:3]
files = descriptor_pb2.FileDescriptorSet.FromString(open(descriptors, "rb").read())
pool = descriptor_pool.DescriptorPool()
for file in files.file:
    pool.Add(file)
client = ConnectClientSync(url, codec=google_protobuf_binary_codec())


def message(name):
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


def method_of(service, name, stream_type):
    found = pool.FindServiceByName(service).FindMethodByName(name)
    return MethodInfo(
        name=name,
        service_name=service,
        input=message(found.input_type.full_name),
        output=message(found.output_type.full_name),
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=stream_type,
    )


def unary(service, name, headers=None, **fields):
    method = method_of(service, name, StreamType.UNARY)
    return client.execute_unary(request=method.input(**fields), method=method, headers=headers)


SESSIONS = "strongroom.v1.SessionService"
login = unary(SESSIONS, "Login", username="admin", password=sys.stdin.read(), description="x" * 200)
headers = {"authorization": "Bearer " + login.token}
found = unary(SESSIONS, "WhoAmI", headers)

write = method_of("strongroom.v1.UploadService", "WriteSegment", StreamType.CLIENT_STREAM)
try:
    client.execute_client_stream(request=iter([write.input(chunk=b"x" * 100)]), method=write, headers=headers)
    refused = None
except ConnectError as error:
    refused = {"code": error.code.value, "message": error.message}
print(json.dumps({"user": found.session.user, "refused": refused}))
