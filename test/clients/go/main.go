// A Go worker against a real sidecar: everything a worker's author relies on, checked.
//
// Run by check.sh. Prints one line, and exits with 1 at the first surprise.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "worker/gen/pluginstate/v1"
)

var company = &pb.Scope{Kind: pb.ScopeKind_SCOPE_KIND_COMPANY, Id: "acme"}
var instance = &pb.Scope{Kind: pb.ScopeKind_SCOPE_KIND_INSTANCE}

// Of this run alone, so that the check may be run again on the same data.
var namespace = "go-" + rand.Text()

var checks int

// expect counts a check, and ends the program when it fails.
func expect[T any](what string, actual, expected T) {
	if !reflect.DeepEqual(actual, expected) {
		fail("%s: expected %.200v, got %.200v", what, expected, actual)
	}
	checks++
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", values...)
	os.Exit(1)
}

// must returns what a call returned, and ends the program when it failed.
func must[T any](value T, err error) T {
	if err != nil {
		fail("unexpected error: %v", err)
	}
	return value
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	connection := must(grpc.NewClient(
		os.Getenv("PLUGIN_STATE_ADDRESS"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A 4 MiB value makes a message larger than gRPC's default.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)),
	))
	defer connection.Close()
	w := worker{ctx, pb.NewPluginStateServiceClient(connection)}
	w.knowsWhomItTalksTo()
	w.setsAndGets()
	w.keepsValuesExactly()
	w.listsInPages()
	w.deletes()
	w.writesAtOnce()
	w.readsErrors()
	fmt.Printf("%d checks passed\n", checks)
}

type worker struct {
	ctx    context.Context
	client pb.PluginStateServiceClient
}

func (w worker) set(key, valueJSON string) *pb.SetResponse {
	return must(w.client.Set(w.ctx, setRequest(key, valueJSON)))
}

func setRequest(key, valueJSON string) *pb.SetRequest {
	return &pb.SetRequest{Scope: company, Namespace: namespace, Key: key, ValueJson: valueJSON}
}

func (w worker) get(scope *pb.Scope, key string) *pb.GetResponse {
	return must(w.client.Get(w.ctx, getRequest(scope, key)))
}

func getRequest(scope *pb.Scope, key string) *pb.GetRequest {
	return &pb.GetRequest{Scope: scope, Namespace: namespace, Key: key}
}

func (w worker) delete(key string) *pb.DeleteResponse {
	request := &pb.DeleteRequest{Scope: company, Namespace: namespace, Key: key}
	return must(w.client.Delete(w.ctx, request))
}

// pages lists until the token is empty; request is used up.
func (w worker) pages(request *pb.ListRequest) (pages [][]*pb.Entry) {
	request.Scope, request.Namespace = company, namespace
	for {
		page := must(w.client.List(w.ctx, request))
		pages = append(pages, page.Entries)
		if page.NextPageToken == "" {
			return pages
		}
		request.PageToken = page.NextPageToken
	}
}

func (w worker) knowsWhomItTalksTo() {
	info := must(w.client.GetServerInfo(w.ctx, &pb.GetServerInfoRequest{}))
	expect("API versions", info.ApiVersions, []string{"pluginstate.v1"})
	expect("plugin key", info.Plugin.Key, "demo")
	expect("length of the plugin's id", len(info.Plugin.Id), 36)
	expect("key limit", info.Limits.MaxKeyBytes, 1024)
}

func (w worker) setsAndGets() {
	expect("a missing entry is no error", w.get(company, "greeting").Entry == nil, true)
	first := w.set("greeting", `"hello"`)
	expect("created by the first set", first.Created, true)
	second := w.set("greeting", `"hello again"`)
	expect("not created by the second", second.Created, false)
	expect("revisions grow", second.Revision > first.Revision, true)
	reply := w.get(company, "greeting")
	expect("the last value is read", reply.Entry.ValueJson, `"hello again"`)
	expect("the entry's revision is its write's", reply.Entry.Revision, second.Revision)
	expect("the plugin's revision is no older", reply.Revision >= second.Revision, true)
	expect("the entry's namespace", reply.Entry.Namespace, namespace)
	expect("the entry's key", reply.Entry.Key, "greeting")
	expect("the entry's scope", proto.Equal(reply.Entry.Scope, company), true)
	made, changed := reply.Entry.CreateTime.AsTime(), reply.Entry.UpdateTime.AsTime()
	expect("made before it was changed", changed.Before(made), false)
	expect("another scope is apart", w.get(instance, "greeting").Entry == nil, true)
}

func (w worker) keepsValuesExactly() {
	for _, text := range []string{"null", "false", "0", `""`, `"123"`, "[]", "{}", `"é 😀"`, "1.50"} {
		expect("value "+text, w.roundTrip(text), text)
	}
	for _, text := range []string{"12345678901234567890", "-0.1", "1.0", "1e400", "3.14159265358979323846264338"} {
		expect("number "+text, number(w.roundTrip(text)).Cmp(number(text)), 0)
	}
	large := `"` + strings.Repeat("x", 4<<20-2) + `"`
	expect("a value of 4 MiB", w.roundTrip(large) == large, true)
}

func (w worker) roundTrip(valueJSON string) string {
	w.set("value", valueJSON)
	return w.get(company, "value").Entry.ValueJson
}

func number(text string) *big.Rat {
	value, ok := new(big.Rat).SetString(text)
	if !ok {
		fail("not a number: %.200s", text)
	}
	return value
}

func (w worker) listsInPages() {
	var keys []string
	for i := range 25 {
		keys = append(keys, fmt.Sprintf("item/%03d", i))
		w.set(keys[i], string(must(json.Marshal(map[string]int{"i": i}))))
	}
	pages := w.pages(&pb.ListRequest{Prefix: "item/", PageSize: 10})
	expect("number of pages", len(pages), 3)
	expect("every key once, in order", keysOf(pages), keys)
	slices.Reverse(keys)
	pages = w.pages(&pb.ListRequest{Prefix: "item/", PageSize: 10, Reverse: true})
	expect("backwards", keysOf(pages), keys)
	pages = w.pages(&pb.ListRequest{Start: "item/003", End: "item/004"})
	expect("a range, with values", pages[0][0].ValueJson, `{"i": 3}`)
	pages = w.pages(&pb.ListRequest{Start: "item/003", End: "item/004", KeysOnly: true})
	expect("keys only", pages[0][0].ValueJson, "")
}

func keysOf(pages [][]*pb.Entry) (keys []string) {
	for _, entry := range slices.Concat(pages...) {
		keys = append(keys, entry.Key)
	}
	return keys
}

func (w worker) deletes() {
	expect("it existed", w.delete("greeting").Existed, true)
	expect("it's gone", w.get(company, "greeting").Entry == nil, true)
	expect("deleting again is no error", w.delete("greeting").Existed, false)
}

func (w worker) writesAtOnce() {
	increment := &pb.UpdateRequest{
		Scope: company, Namespace: namespace, Key: "count",
		Change:    &pb.UpdateRequest_Increment{Increment: &pb.Increment{By: "0.1"}},
		RequestId: randomUUID(),
	}
	first := must(w.client.Update(w.ctx, increment))
	expect("incremented", first.ValueJson, "0.1")
	expect("once only", proto.Equal(must(w.client.Update(w.ctx, increment)), first), true)

	conditional := setRequest("count", "5")
	conditional.Condition = &pb.SetRequest_IfRevision{IfRevision: first.Revision}
	second := must(w.client.Set(w.ctx, conditional))
	_, err := w.client.Set(w.ctx, conditional)
	info := expectReason("changed since", err, codes.Aborted, "REVISION_MISMATCH")
	expect("what it is now", info.Metadata["current"], fmt.Sprint(second.Revision))

	request := &pb.TransactRequest{
		Checks: []*pb.Check{{
			Scope: company, Namespace: namespace, Key: "made",
			Condition: &pb.Check_IfAbsent{IfAbsent: true},
		}},
		Operations: []*pb.Operation{{Operation: &pb.Operation_Set{Set: setRequest("made", "1")}}},
	}
	reply := must(w.client.Transact(w.ctx, request))
	expect("a result for each", reply.Results[0].GetSet().Created, true)
	_, err = w.client.Transact(w.ctx, request)
	expectReason("a failed check", err, codes.Aborted, "CHECKS_FAILED")
	expect("which", failedChecks(err).Failed[0].GetCheck(), int32(0))
	expect("why", failedChecks(err).Failed[0].Reason, pb.ErrorReason_ERROR_REASON_ENTRY_EXISTS)
}

func randomUUID() string {
	var bytes [16]byte
	rand.Read(bytes[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", bytes[:4], bytes[4:6], bytes[6:8], bytes[8:10], bytes[10:])
}

// failedChecks returns that detail of an error.
func failedChecks(err error) *pb.FailedChecks {
	for _, detail := range status.Convert(err).Details() {
		if failed, ok := detail.(*pb.FailedChecks); ok {
			return failed
		}
	}
	fail("no FailedChecks: %v", err)
	return nil
}

// expectReason checks an error's code and reason.
func expectReason(what string, err error, code codes.Code, reason string) *errdetails.ErrorInfo {
	failed := status.Convert(err)
	expect(what+": code", failed.Code(), code)
	for _, detail := range failed.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			expect(what+": reason", info.Reason, reason)
			return info
		}
	}
	fail("%s: no ErrorInfo: %v", what, err)
	return nil
}

func (w worker) readsErrors() {
	_, err := w.client.Get(w.ctx, getRequest(company, ""))
	expectFailure("no key", err, "INVALID_FIELD", "key")
	_, err = w.client.Get(w.ctx, getRequest(&pb.Scope{Kind: 99, Id: "x"}, "k"))
	expectFailure("unknown scope kind", err, "INVALID_FIELD", "scope.kind")
	_, err = w.client.Get(w.ctx, getRequest(&pb.Scope{Kind: instance.Kind, Id: "x"}, "k"))
	expectFailure("an id for instance", err, "INVALID_FIELD", "scope.id")
	_, err = w.client.List(w.ctx, &pb.ListRequest{Scope: company, PageToken: "bm9uc2Vuc2U"})
	expectFailure("a made-up token", err, "INVALID_FIELD", "page_token")
	_, err = w.client.Set(w.ctx, setRequest("k", `{"open": `))
	info := expectFailure("no JSON", err, "INVALID_VALUE", "value_json")
	expect("and where", info.Metadata["offset"] != "", true)
	_, err = w.client.Set(w.ctx, setRequest(strings.Repeat("k", 1025), "1"))
	info = expectFailure("a long key", err, "TOO_LARGE", "key")
	expect("how long", info.Metadata, map[string]string{"size": "1025", "limit": "1024"})
	expect("nothing was stored", w.get(company, "k").Entry == nil, true)
}

// expectFailure checks an INVALID_ARGUMENT, its reason and its field.
func expectFailure(what string, err error, reason, field string) *errdetails.ErrorInfo {
	failed := status.Convert(err)
	expect(what+": code", failed.Code(), codes.InvalidArgument)
	info, violations := &errdetails.ErrorInfo{}, []string{}
	for _, detail := range failed.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			info = detail
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				violations = append(violations, violation.Field)
			}
		}
	}
	expect(what+": domain", info.Domain, "pluginstate")
	expect(what+": reason", info.Reason, reason)
	expect(what+": field", violations, []string{field})
	return info
}
