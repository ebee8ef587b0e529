"""A gRPC client of grpcio: one scenario a run, over one channel.

    python client.py TARGET SCENARIO [ARGUMENT...]

Standard output has one word a line for what was reached, and at the end one line of JSON. A line on standard input lets a scenario go on.
"""

import json
import sys
import threading
import time
from collections import Counter
from concurrent import futures

import grpc

TARGET, SCENARIO, ARGUMENTS = sys.argv[1], sys.argv[2], sys.argv[3:]
LARGE = 16 * 1024 * 1024
PATIENCE = 20
OPTIONS = [
    ("grpc.max_receive_message_length", LARGE),
    ("grpc.max_send_message_length", LARGE),
    ("grpc.enable_retries", 0),
]
METADATA = [("x-ask-text", "a b, c;d=%20"), ("x-ask-raw-bin", bytes(range(256))), ("x-ask-text", "twice")]


class Service:
    def __init__(self, channel, service="edge.Edge"):
        def method(kind, name):
            return getattr(channel, kind)(f"/{service}/{name}")

        self.echo = method("unary_unary", "Echo")
        self.gather = method("stream_unary", "Gather")
        self.count = method("unary_stream", "Count")
        self.talk = method("stream_stream", "Talk")
        self.fail = method("unary_unary", "Fail")
        self.hang = method("unary_unary", "Hang")
        self.begin = method("unary_stream", "Begin")
        self.slow = method("unary_unary", "Slow")


def say(text):
    print(text, flush=True)


def outcome(call):
    """The status of a call that must fail, and how long it took."""
    began = time.monotonic()
    try:
        answer = call()
        status, details = "OK", repr(answer)[:60]
    except grpc.RpcError as error:
        status, details = error.code().name, error.details()
    return {"status": status, "details": details, "seconds": round(time.monotonic() - began, 3)}


def calls(service):
    """Every kind of call; what is not as it should be."""
    wrong = []

    def check(what, is_so, seen=None):
        if not is_so:
            wrong.append(f"{what}: {seen!r:.200}")

    asked = [(key, value) for key, value in METADATA]

    def check_metadata(what, metadata):
        seen = [(key, value) for key, value in metadata if key.startswith("x-ask-")]
        check(what, sorted(map(repr, seen)) == sorted(map(repr, asked)), seen)

    answer, call = service.echo.with_call(b"hello", metadata=METADATA, timeout=PATIENCE)
    check("unary", answer == b"hello", answer)
    check_metadata("initial metadata", call.initial_metadata())
    check_metadata("trailing metadata", call.trailing_metadata())
    check("empty message", service.echo(b"", timeout=PATIENCE) == b"")
    large = bytes(range(256)) * (16 * 1024)
    check("4 MiB there and back", service.echo(large, timeout=PATIENCE) == large)
    sizes = [0, 1, 100_000, 4 * 1024 * 1024] + [1000] * 500
    total = service.gather((b"y" * size for size in sizes), timeout=PATIENCE)
    check("client stream", total == b"%d %d" % (len(sizes), sum(sizes)), total)
    messages = [len(message) for message in service.count(b"500 1000", timeout=PATIENCE)]
    check("server stream", len(messages) == 500 and min(messages) >= 1002, len(messages))
    messages = [len(message) for message in service.count(b"3 4194304", timeout=PATIENCE)]
    check("large server stream", messages == [4194306] * 3, messages)
    check("empty server stream", list(service.count(b"0 0", timeout=PATIENCE)) == [])
    turns, go_on = [], threading.Semaphore(1)

    def words():
        for ordinal in range(100):
            if not go_on.acquire(timeout=PATIENCE):
                return
            yield b"word %d" % ordinal

    stream = service.talk(words(), timeout=PATIENCE, metadata=METADATA)
    for message in stream:
        # The next word is said only when the one before was answered: nothing may wait for more.
        turns.append(message)
        go_on.release()
    check("conversation", turns == [b"heard word %d" % ordinal for ordinal in range(100)], turns[-1:])
    check_metadata("trailing metadata of a stream", stream.trailing_metadata())
    text = "no: 100 % \N{SNOWMAN}"
    try:
        service.fail(text.encode(), timeout=PATIENCE)
        wrong.append("a failure came as a success")
    except grpc.RpcError as error:
        check("status", error.code() == grpc.StatusCode.FAILED_PRECONDITION, error.code())
        check("details", error.details() == text, error.details())
        rich = dict(error.trailing_metadata()).get("grpc-status-details-bin")
        check("rich details", rich == bytes(range(256)), rich)
    many = [service.echo.future(b"%d" % ordinal * 1000, timeout=PATIENCE) for ordinal in range(300)]
    check("300 at once", [call.result() for call in many] == [b"%d" % n * 1000 for n in range(300)])
    return {"wrong": wrong}


def spread(service):
    """Many calls over one channel: which server answered."""
    names = Counter()

    def one(_):
        _, call = service.echo.with_call(b"x", timeout=PATIENCE)
        return dict(call.trailing_metadata())["x-name"]

    began = time.monotonic()
    with futures.ThreadPoolExecutor(int(ARGUMENTS[1])) as pool:
        names.update(pool.map(one, range(int(ARGUMENTS[0]))))
    seconds = time.monotonic() - began
    say("done")
    sys.stdin.readline()
    return {"names": names, "seconds": round(seconds, 3)}


def deadline(service):
    """Deadlines of calls that no server answers."""
    wait = float(ARGUMENTS[0])
    return {
        "unary": outcome(lambda: service.hang(b"", timeout=wait)),
        "stream": outcome(lambda: list(service.begin(b"", timeout=wait))),
    }


def cancel(service):
    """Two calls that their client gives up when it is told to."""
    unary = service.hang.future(b"")
    stream = service.begin(b"")
    first = next(stream)
    say("waiting")
    sys.stdin.readline()
    unary.cancel()
    stream.cancel()
    return {"first": first.decode(), "unary": unary.code().name, "stream": stream.code().name}


def one(service):
    """A single call."""
    return outcome(lambda: service.echo(b"x", timeout=PATIENCE))


def stream(service):
    """Calls that wait for more when something happens to their server."""
    begun = service.begin(b"", timeout=PATIENCE)
    next(begun)
    waiting = service.hang.future(b"", timeout=PATIENCE)
    say("waiting")
    return {"stream": outcome(lambda: next(begun)), "unary": outcome(waiting.result)}


def load(service):
    """Calls by several threads until a line comes; how they ended, and what those were that failed."""
    stop = threading.Event()
    counts, names, failed, lock = Counter(), Counter(), [], threading.Lock()

    def work():
        while not stop.is_set():
            try:
                name, status = service.slow(b"5", timeout=PATIENCE).decode(), "OK"
            except grpc.RpcError as error:
                name, status = "", error.code().name
                with lock:
                    failed.append(error.details())
            with lock:
                counts[status] += 1
                names[name] += 1

    threads = [threading.Thread(target=work) for _ in range(int(ARGUMENTS[0]))]
    for thread in threads:
        thread.start()
    say("running")
    sys.stdin.readline()
    stop.set()
    for thread in threads:
        thread.join()
    return {"counts": counts, "names": names, "failed": failed[:5]}


def main():
    with grpc.insecure_channel(TARGET, options=OPTIONS) as channel:
        grpc.channel_ready_future(channel).result(timeout=PATIENCE)
        service = Service(channel, *ARGUMENTS) if SCENARIO == "one" else Service(channel)
        say(json.dumps(globals()[SCENARIO](service)))


main()
