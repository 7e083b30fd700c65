"""A first plugin worker: counts its runs, keeps a note about each, lists them, reads errors.

In a folder of this project's own, once:

    pip install grpcio grpcio-tools grpcio-status
    python -m grpc_tools.protoc -I ../../proto --python_out=. --grpc_python_out=. ../../proto/pluginstate/v1/*.proto

Then, with a sidecar running: PLUGIN_STATE_ADDRESS=127.0.0.1:50051 python worker.py
"""

import json
import os
import uuid

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pluginstate.v1 import entry_pb2
from pluginstate.v1 import plugin_state_service_pb2 as api
from pluginstate.v1.plugin_state_service_pb2_grpc import PluginStateServiceStub

# State about one company; other scopes: the whole instance, a project, an agent, an issue, a run…
SCOPE = entry_pb2.Scope(kind=entry_pb2.SCOPE_KIND_COMPANY, id="acme")


def main():
    with grpc.insecure_channel(os.environ.get("PLUGIN_STATE_ADDRESS", "127.0.0.1:50051")) as channel:
        state = PluginStateServiceStub(channel)

        # Changed on the server: of workers that count at the same time, each gets a number of its own.
        count = api.UpdateRequest(scope=SCOPE, key="runs", increment=api.Increment(by="1"))
        run = json.loads(state.Update(count, timeout=5).value_json)
        print(f"this is run {run}")

        # A missing entry is a reply without one, not an error.
        reply = state.Get(api.GetRequest(scope=SCOPE, key="latest"), timeout=5)
        print(f"the one before: {reply.entry.value_json if reply.HasField('entry') else 'none'}")

        # Only if there is none yet. Who loses a condition has changed nothing, and learns why.
        first = api.SetRequest(scope=SCOPE, key="first", value_json=json.dumps(run), if_absent=True)
        try:
            state.Set(first, timeout=5)
            print("nobody was here before")
        except grpc.RpcError as error:
            if reason_of(error) != "ENTRY_EXISTS":
                raise
            print("somebody was here before")

        # Values are JSON text. The reply comes when the database has committed: both writes, or none. The
        # request_id makes it safe to send again, when no reply came.
        note = json.dumps({"run": run, "pid": os.getpid()})
        writes = [
            api.Operation(set=api.SetRequest(scope=SCOPE, key=f"note/{run:06}", value_json=note)),
            api.Operation(set=api.SetRequest(scope=SCOPE, key="latest", value_json=note)),
        ]
        state.Transact(api.TransactRequest(operations=writes, request_id=str(uuid.uuid4())), timeout=5)

        # Page by page, in key order; only an empty token ends the list.
        request = api.ListRequest(scope=SCOPE, prefix="note/", page_size=10)
        while True:
            page = state.List(request, timeout=5)
            for entry in page.entries:
                print(f"{entry.key} = {entry.value_json} at revision {entry.revision}")
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token

        # An error carries a reason for programs beside the sentence for people.
        try:
            state.Set(api.SetRequest(scope=SCOPE, key="note/bad", value_json="{no json"), timeout=5)
        except grpc.RpcError as error:
            print(f"refused as it should be: {error.code().name} {reason_of(error)}: {error.details()}")


def reason_of(error):
    """Why a call failed: a name of docs/errors.md; empty when it didn't come to the sidecar."""
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    any(detail.Unpack(info) for detail in (status.details if status else []))
    return info.reason


if __name__ == "__main__":
    main()
