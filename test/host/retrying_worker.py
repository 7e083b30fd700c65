"""The same as retrying-worker.js on grpcio: gRPC's C core takes a GOAWAY otherwise than grpc-js does.

Stubs have to be on PYTHONPATH. See worker-process.ts.
"""

import json
import sys
import threading
import time
import uuid

import grpc
from pluginstate.v1 import entry_pb2, plugin_state_service_pb2 as api
from pluginstate.v1.plugin_state_service_pb2_grpc import PluginStateServiceStub

DEADLINE_SECONDS = 60
KEYS_OF_A_WRITER = 50
ITEMS_OF_A_LIST = 50
INSTANCE = entry_pb2.Scope(kind=entry_pb2.SCOPE_KIND_INSTANCE)

spec = json.loads(sys.argv[1])
channel = grpc.insecure_channel(
    spec["address"],
    options=[
        ("grpc.service_config", json.dumps(spec["serviceConfig"])),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ],
)
stub = PluginStateServiceStub(channel)
lock = threading.Lock()
is_over = threading.Event()
told = {"acknowledged": 0, "retried": 0, "failed": [], "sets": {}, "counters": {}, "lists": {}}


def send(method, request):
    """The reply, or None after noting how the call failed."""
    request.scope.CopyFrom(INSTANCE)
    request.request_id = str(uuid.uuid4())
    try:
        reply, call = method.with_call(request, timeout=DEADLINE_SECONDS, wait_for_ready=True)
    except grpc.RpcError as error:
        with lock:
            told["failed"].append(f"{request.key}: {error.code().name}: {error.details()}")
        return None
    with lock:
        told["acknowledged"] += 1
        if any(key == "grpc-previous-rpc-attempts" for key, _ in call.initial_metadata()):
            told["retried"] += 1
    return reply


def increment(key):
    reply = send(stub.Update, api.UpdateRequest(key=key, increment=api.Increment()))
    if reply is None:
        return None
    with lock:
        told["counters"][key] = told["counters"].get(key, 0) + 1
    return reply.value_json


def write(writer):
    """One loop: a Set, an increment that all share, one of its own, an append."""
    n = 0
    while not is_over.is_set():
        key = f"set/{writer}/{n % KEYS_OF_A_WRITER}"
        value = f'"{n}"'
        if send(stub.Set, api.SetRequest(key=key, value_json=value)) is not None:
            told["sets"][key] = value
        increment("counter/shared")
        own = f"counter/{writer}"
        counted = increment(own)
        if counted is not None and counted != str(told["counters"][own]):
            told["failed"].append(f"{own} is {counted} after {told['counters'][own]} increments")
        name = f"list/{writer}/{n // ITEMS_OF_A_LIST}"
        if send(stub.Update, api.UpdateRequest(key=name, append=api.Append(value_json=str(n)))):
            told["lists"].setdefault(name, []).append(n)
        n += 1
        time.sleep(spec["pauseMs"] / 1000)


threads = [threading.Thread(target=write, args=(n,)) for n in range(spec["writers"])]
for thread in threads:
    thread.start()
for line in sys.stdin:
    if line.strip() == "stop":
        break
    with lock:
        print(json.dumps({key: told[key] for key in ("acknowledged", "retried", "failed")}), flush=True)
is_over.set()
for thread in threads:
    thread.join()
print(json.dumps(told), flush=True)
