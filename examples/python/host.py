"""A host in any language: runs a sidecar, calls it, tells its health, restarts it, drains it at the end.

    pip install grpcio
    python host.py node dist/main.js serve        # or: python host.py plugin-state serve
"""
import json, random, signal, subprocess, sys, threading, time
import grpc

FINAL_EXIT_CODES = {64, 77, 78}  # usage, permission, configuration: the same start would fail again
HEALTH = {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}  # HealthCheckResponse.status, as bytes
stopping, child = threading.Event(), None

def stop(*_):
    stopping.set()
    if child:
        child.terminate()  # it drains: calls in flight finish
        signal.alarm(20)  # seconds until it is killed

def start(listen):
    """Starts a process and reads its one line. Its stdin is our pipe, whose end it takes as ours."""
    global child
    command = [*sys.argv[1:], "--plugin", "demo", "--listen", listen, "--exit-with-parent"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    signal.alarm(60)
    line = child.stdout.readline()
    signal.alarm(20 if stopping.is_set() else 0)
    return json.loads(line) if line else {"event": "failed", "reason": "EXITED", "retryable": True}

def use(address):
    with grpc.insecure_channel(address) as channel:
        try:
            info = channel.unary_unary("/pluginstate.v1.PluginStateService/GetServerInfo")
            print("call answered for demo:", b"demo" in info(b"", timeout=10), flush=True)
            for answer in channel.unary_stream("/grpc.health.v1.Health/Watch")(b""):
                print("health", HEALTH.get(answer, "UNKNOWN"), flush=True)
        except grpc.RpcError:
            print("health UNKNOWN", flush=True)

def main():
    listen, restarts = "127.0.0.1:0", 0
    while not stopping.is_set():
        event, started_at = start(listen), time.monotonic()
        if event["event"] == "ready":
            if event["protocol"] != 1:
                sys.exit("a host for protocol 1 only")
            listen = event["bindings"][0]["address"]  # and the same one after a restart
            print("ready", event["version"], "at", listen, "process", event["pid"], flush=True)
            threading.Thread(target=use, args=[listen], daemon=True).start()
        code = child.wait()
        if stopping.is_set():
            return print("stopped with exit code", code, flush=True)
        print("ended with", code, event.get("reason", ""), event.get("message", ""), flush=True)
        restarts = 1 if time.monotonic() - started_at >= 60 else restarts + 1  # a minute: it was well
        if code in FINAL_EXIT_CODES or event.get("retryable") is False or restarts > 10:
            sys.exit("it won't get better: giving up")
        stopping.wait(min(300, 2 ** (restarts - 1) * random.uniform(0.75, 1.25)))

for number, action in ((signal.SIGTERM, stop), (signal.SIGINT, stop), (signal.SIGALRM, lambda *_: child.kill())):
    signal.signal(number, action)
main()
