"""A first plugin worker: counts its runs, keeps a note about each, lists them, reads an error.

In a folder of this project's own, once:

    pip install grpcio grpcio-tools grpcio-status
    python -m grpc_tools.protoc -I ../../proto --python_out=. --grpc_python_out=. ../../proto/pluginstate/v1/*.proto

Then, with a sidecar running: PLUGIN_STATE_ADDRESS=127.0.0.1:50051 python worker.py
"""

import json
import os

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

        # A missing entry is a reply without one, not an error.
        reply = state.Get(api.GetRequest(scope=SCOPE, key="runs"), timeout=5)
        runs = json.loads(reply.entry.value_json) if reply.HasField("entry") else 0
        print(f"this is run {runs + 1}")

        # Values are JSON text. The reply comes when the database has committed.
        state.Set(api.SetRequest(scope=SCOPE, key="runs", value_json=json.dumps(runs + 1)), timeout=5)
        note = json.dumps({"run": runs + 1, "pid": os.getpid()})
        state.Set(api.SetRequest(scope=SCOPE, key=f"note/{runs + 1:06}", value_json=note), timeout=5)

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
            info = error_details_pb2.ErrorInfo()
            any(detail.Unpack(info) for detail in rpc_status.from_call(error).details)
            print(f"refused as it should be: {error.code().name} {info.reason}: {error.details()}")


if __name__ == "__main__":
    main()
