"""A Python worker against a real sidecar: everything a worker's author relies on, checked.

Run by check.sh. Prints one line, and exits with 1 at the first surprise.
"""

import json
import os
import sys
import uuid
from decimal import Decimal

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pluginstate.v1 import entry_pb2, errors_pb2, plugin_state_service_pb2 as api
from pluginstate.v1.plugin_state_service_pb2_grpc import PluginStateServiceStub

COMPANY = entry_pb2.Scope(kind=entry_pb2.SCOPE_KIND_COMPANY, id="acme")
INSTANCE = entry_pb2.Scope(kind=entry_pb2.SCOPE_KIND_INSTANCE)
# Of this run alone, so that the check may be run again on the same data.
NAMESPACE = f"python-{uuid.uuid4()}"
TIMEOUT_SECONDS = 10
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

checks = 0


def expect(what, actual, expected):
    """Counts a check; ends the program when it fails."""
    global checks
    if actual != expected:
        sys.exit(f"{what}: expected {expected!r:.200}, got {actual!r:.200}")
    checks += 1


def main():
    channel = grpc.insecure_channel(
        os.environ["PLUGIN_STATE_ADDRESS"],
        # A 4 MiB value makes a message larger than gRPC's default.
        options=[("grpc.max_receive_message_length", 16 * 1024 * 1024)],
    )
    with channel:
        worker = Worker(PluginStateServiceStub(channel))
        worker.knows_whom_it_talks_to()
        worker.sets_and_gets()
        worker.keeps_values_exactly()
        worker.lists_in_pages()
        worker.deletes()
        worker.changes_on_the_server()
        worker.loses_conditions()
        worker.transacts()
        worker.reads_errors()
    print(f"{checks} checks passed")


class Worker:
    def __init__(self, stub):
        self.stub = stub

    def set(self, key, value_json, scope=COMPANY):
        request = api.SetRequest(scope=scope, namespace=NAMESPACE, key=key, value_json=value_json)
        return self.stub.Set(request, timeout=TIMEOUT_SECONDS)

    def get(self, key, scope=COMPANY):
        request = api.GetRequest(scope=scope, namespace=NAMESPACE, key=key)
        return self.stub.Get(request, timeout=TIMEOUT_SECONDS)

    def delete(self, key, scope=COMPANY):
        request = api.DeleteRequest(scope=scope, namespace=NAMESPACE, key=key)
        return self.stub.Delete(request, timeout=TIMEOUT_SECONDS)

    def list(self, **options):
        request = api.ListRequest(scope=COMPANY, namespace=NAMESPACE, **options)
        return self.stub.List(request, timeout=TIMEOUT_SECONDS)

    def pages(self, **options):
        token = ""
        while True:
            page = self.list(page_token=token, **options)
            yield page.entries
            token = page.next_page_token
            if not token:
                return

    def knows_whom_it_talks_to(self):
        info = self.stub.GetServerInfo(api.GetServerInfoRequest(), timeout=TIMEOUT_SECONDS)
        expect("api versions", list(info.api_versions), ["pluginstate.v1"])
        expect("plugin key", info.plugin.key, "demo")
        expect("plugin id", str(uuid.UUID(info.plugin.id)), info.plugin.id)
        expect("key limit", info.limits.max_key_bytes, 1024)

    def sets_and_gets(self):
        expect("a missing entry is no error", self.get("greeting").HasField("entry"), False)
        first = self.set("greeting", '"hello"')
        expect("created by the first set", first.created, True)
        second = self.set("greeting", '"hello again"')
        expect("not created by the second", second.created, False)
        expect("revisions grow", second.revision > first.revision, True)
        reply = self.get("greeting")
        expect("the last value is read", json.loads(reply.entry.value_json), "hello again")
        expect("the entry's revision is its write's", reply.entry.revision, second.revision)
        expect("the plugin's revision is no older", reply.revision >= second.revision, True)
        expect("the entry's name", (reply.entry.namespace, reply.entry.key), (NAMESPACE, "greeting"))
        expect("the entry's scope", reply.entry.scope, COMPANY)
        times = (reply.entry.create_time.ToDatetime(), reply.entry.update_time.ToDatetime())
        expect("made before it was changed", times[0] <= times[1], True)
        expect("another scope is apart", self.get("greeting", INSTANCE).HasField("entry"), False)

    def keeps_values_exactly(self):
        for text in ("null", "false", "0", '""', '"123"', "[]", "{}", '"\\u00e9 \U0001f600"'):
            expect(f"value {text}", json.loads(self.round_trip(text)), json.loads(text))
        numbers = ("12345678901234567890", "-0.1", "1.0", "1e400", "3.14159265358979323846264338")
        for text in numbers:
            expect(f"number {text}", Decimal(self.round_trip(text)), Decimal(text))
        expect("digits after the point stay", self.round_trip("1.50"), "1.50")
        large = json.dumps("x" * (4 * 1024 * 1024 - 2))
        expect("a value of 4 MiB", self.round_trip(large), large)

    def round_trip(self, value_json):
        self.set("value", value_json)
        return self.get("value").entry.value_json

    def lists_in_pages(self):
        keys = [f"item/{number:03}" for number in range(25)]
        for key in keys:
            self.set(key, json.dumps({"key": key}))
        pages = [[entry.key for entry in page] for page in self.pages(prefix="item/", page_size=10)]
        expect("sizes of pages", [len(page) for page in pages], [10, 10, 5])
        expect("every key once, in order", sum(pages, []), keys)
        backwards = self.pages(prefix="item/", page_size=10, reverse=True)
        expect("backwards", [entry.key for page in backwards for entry in page], keys[::-1])
        [entry] = self.list(start="item/003", end="item/004").entries
        expect("a range, with values", json.loads(entry.value_json), {"key": "item/003"})
        [entry] = self.list(start="item/003", end="item/004", keys_only=True).entries
        expect("keys only", entry.value_json, "")

    def deletes(self):
        expect("it existed", self.delete("greeting").existed, True)
        expect("it's gone", self.get("greeting").HasField("entry"), False)
        expect("deleting again is no error", self.delete("greeting").existed, False)

    def update(self, key, **options):
        request = api.UpdateRequest(scope=COMPANY, namespace=NAMESPACE, key=key, **options)
        return self.stub.Update(request, timeout=TIMEOUT_SECONDS)

    def changes_on_the_server(self):
        by = api.Increment(by="0.1", max="0.3")
        replies = [self.update("sum", increment=by) for _ in range(3)]
        expect("exact decimals", [r.value_json for r in replies], ["0.1", "0.2", "0.3"])
        code, info, _ = error_of(lambda: self.update("sum", increment=by))
        expect("beyond max", (code, info.reason), (FAILED_PRECONDITION, "OUT_OF_BOUNDS"))
        self.set("object", '{"a": 1, "b": {"c": 2, "d": 3}}')
        patched = self.update("object", merge_patch='{"a": null, "b": {"c": 4}}')
        expect("a merge patch", json.loads(patched.value_json), {"b": {"c": 4, "d": 3}})
        item = api.Append(value_json='"x"', unique=True)
        expect("a new item", self.update("items", append=item).changed, True)
        expect("a known item", self.update("items", append=item).changed, False)
        code, info, _ = error_of(lambda: self.update("items", increment=by))
        expect("no number", (code, info.reason), (FAILED_PRECONDITION, "WRONG_TYPE"))
        request_id = str(uuid.uuid4())
        twice = [self.update("once", increment=api.Increment(), request_id=request_id) for _ in "12"]
        expect("once only", twice[0], twice[1])
        expect("and counted once", twice[1].value_json, "1")
        lives = self.update("window", increment=api.Increment(), ttl={"seconds": 60}, keep_ttl=True)
        expires = self.get("window").entry.expire_time.ToDatetime()
        self.update("window", increment=api.Increment(), ttl={"seconds": 60}, keep_ttl=True)
        expect("a new window", lives.created, True)
        expect("its end stays", self.get("window").entry.expire_time.ToDatetime(), expires)

    def loses_conditions(self):
        def set_if(**condition):
            request = api.SetRequest(scope=COMPANY, namespace=NAMESPACE, key="c", value_json="1", **condition)
            return self.stub.Set(request, timeout=TIMEOUT_SECONDS)

        code, info, _ = error_of(lambda: set_if(if_present=True))
        expect("not there", (code, info.reason), (FAILED_PRECONDITION, "ENTRY_ABSENT"))
        first = set_if(if_absent=True)
        code, info, _ = error_of(lambda: set_if(if_absent=True))
        expect("there", (code, info.reason), (grpc.StatusCode.ALREADY_EXISTS, "ENTRY_EXISTS"))
        second = set_if(if_revision=first.revision, return_previous=True)
        expect("as it was", second.previous.revision, first.revision)
        code, info, _ = error_of(lambda: set_if(if_revision=first.revision))
        expect("changed since", (code, info.reason), (grpc.StatusCode.ABORTED, "REVISION_MISMATCH"))
        expect("what it is now", info.metadata["current"], str(second.revision))

    def transacts(self):
        def name(key):
            return {"scope": COMPANY, "namespace": NAMESPACE, "key": key}

        operations = [
            api.Operation(set=api.SetRequest(**name("t/a"), value_json="1")),
            api.Operation(update=api.UpdateRequest(**name("t/a"), increment=api.Increment())),
            api.Operation(delete=api.DeleteRequest(**name("t/none"))),
        ]
        checks = [api.Check(**name("t/a"), if_absent=True)]
        request = api.TransactRequest(checks=checks, operations=operations)
        reply = self.stub.Transact(request, timeout=TIMEOUT_SECONDS)
        kinds = [result.WhichOneof("result") for result in reply.results]
        expect("a result for each", kinds, ["set", "update", "delete"])
        expect("in order", reply.results[1].update.value_json, "2")
        code, info, failed = error_of(lambda: self.stub.Transact(request, timeout=TIMEOUT_SECONDS))
        expect("a failed check", (code, info.reason), (grpc.StatusCode.ABORTED, "CHECKS_FAILED"))
        parts = [(part.check, part.reason) for part in failed.failed]
        expect("which and why", parts, [(0, errors_pb2.ERROR_REASON_ENTRY_EXISTS)])
        names = [entry_pb2.EntryName(**name(key)) for key in ("t/none", "t/a")]
        batch = self.stub.BatchGet(api.BatchGetRequest(names=names), timeout=TIMEOUT_SECONDS)
        expect("read together", [r.entry.value_json for r in batch.results], ["", "2"])
        scopes = self.stub.ListScopes(api.ListScopesRequest(), timeout=TIMEOUT_SECONDS).scopes
        expect("listed", NAMESPACE in [place.namespace for place in scopes], True)
        everything = api.DeleteRangeRequest(scope=COMPANY, namespace=NAMESPACE, prefix="t/")
        removed = self.stub.DeleteRange(everything, timeout=TIMEOUT_SECONDS)
        expect("removed by prefix", removed.deleted, 1)

    def reads_errors(self):
        info, field = failure(lambda: self.get(""))
        expect("no key", (info.reason, field), ("INVALID_FIELD", "key"))
        expect("domain", info.domain, "pluginstate")
        info, field = failure(lambda: self.get("k", entry_pb2.Scope(kind=99, id="x")))
        expect("unknown scope kind", (info.reason, field), ("INVALID_FIELD", "scope.kind"))
        info, field = failure(lambda: self.get("k", entry_pb2.Scope(kind=INSTANCE.kind, id="x")))
        expect("an id for instance", (info.reason, field), ("INVALID_FIELD", "scope.id"))
        info, field = failure(lambda: self.list(prefix="item/", page_token="bm9uc2Vuc2U"))
        expect("a made-up token", (info.reason, field), ("INVALID_FIELD", "page_token"))
        info, field = failure(lambda: self.set("k", '{"open": '))
        expect("no JSON", (info.reason, field), ("INVALID_VALUE", "value_json"))
        expect("and where", info.metadata["offset"].isdigit(), True)
        info, field = failure(lambda: self.set("k" * 1025, "1"))
        expect("a long key", (info.reason, field), ("TOO_LARGE", "key"))
        expect("how long", dict(info.metadata), {"size": "1025", "limit": "1024"})
        expect("nothing was stored", self.get("k").HasField("entry"), False)


def failure(call):
    """The ErrorInfo and the field of a call that must fail with INVALID_ARGUMENT."""
    code, info, bad_request = error_of(call, error_details_pb2.BadRequest())
    expect("code", code, grpc.StatusCode.INVALID_ARGUMENT)
    return info, bad_request.field_violations[0].field


def error_of(call, other=None):
    """The code, the ErrorInfo and the other detail, FailedChecks unless asked for, of a call that must fail."""
    info = error_details_pb2.ErrorInfo()
    other = errors_pb2.FailedChecks() if other is None else other
    try:
        call()
    except grpc.RpcError as error:
        for detail in rpc_status.from_call(error).details:
            detail.Unpack(info) or detail.Unpack(other)
        return error.code(), info, other
    sys.exit("a call that must fail succeeded")


main()
