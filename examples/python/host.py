"""A host in any language: runs a sidecar, calls it, watches its health, restarts it, drains it at the end.

    pip install grpcio
    python host.py node dist/main.js serve        # or: python host.py plugin-state serve
"""

import json, random, signal, subprocess, sys, threading, time
import grpc

FINAL_EXIT_CODES = {64, 77, 78}  # usage, permission, configuration: the same start would fail again
HEALTH = {b"\x08\x01": "SERVING", b"\x08\x02": "NOT_SERVING"}  # HealthCheckResponse.status, as bytes
stopping = threading.Event()
child = None

def stop(*_):
    stopping.set()
    if child:
        child.terminate()  # it drains: calls in flight finish
        threading.Timer(20, child.kill).start()

def start(listen):
    """Starts a process and waits for its one line. It keeps our pipe as stdin: when we die, it ends."""
    global child
    command = [*sys.argv[1:], "--plugin", "demo", "--listen", listen, "--exit-with-parent"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    line = child.stdout.readline()
    return json.loads(line) if line else {"event": "failed", "reason": "EXITED", "retryable": True}

def watch_health(address):
    with grpc.insecure_channel(address) as channel:
        try:
            for answer in channel.unary_stream("/grpc.health.v1.Health/Watch")(b""):
                print("health", HEALTH.get(answer, "UNKNOWN"), flush=True)
        except grpc.RpcError:
            print("health UNKNOWN", flush=True)

def main():
    listen, failures = "127.0.0.1:0", 0
    while not stopping.is_set():
        event, ready_at = start(listen), time.monotonic()
        if event["event"] == "ready" and event["protocol"] == 1:
            listen = event["bindings"][0]["address"]  # and the same one after a restart
            print("ready", event["version"], "at", listen, "process", event["pid"], flush=True)
            threading.Thread(target=watch_health, args=[listen], daemon=True).start()
            with grpc.insecure_channel(listen) as channel:
                info = channel.unary_unary("/pluginstate.v1.PluginStateService/GetServerInfo")
                print("call answered for demo:", b"demo" in info(b"", timeout=10, wait_for_ready=True), flush=True)
        code = child.wait()
        if stopping.is_set():
            sys.exit(print("stopped with exit code", code, flush=True))
        failures = 0 if event["event"] == "ready" and time.monotonic() - ready_at >= 60 else failures
        print("ended with", code, event.get("reason", ""), event.get("message", ""), flush=True)
        if code in FINAL_EXIT_CODES or event.get("retryable") is False or failures == 10:
            sys.exit("it won't get better: giving up")
        stopping.wait(min(300, 2**failures * random.uniform(0.75, 1.25)))
        failures += 1

signal.signal(signal.SIGTERM, stop), signal.signal(signal.SIGINT, stop)
main()
