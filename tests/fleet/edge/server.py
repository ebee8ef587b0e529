"""A gRPC server of grpcio: generic handlers over plain bytes, and the standard health service.

    python server.py NAME PORT

It says on standard output when it listens, which calls hang, and which of them were cancelled. SIGUSR1 makes its service NOT_SERVING,
SIGUSR2 SERVING again, SIGTERM lets calls end and takes no more.
"""

import signal
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

NAME, PORT = sys.argv[1], sys.argv[2]
SERVICE = "edge.Edge"
LARGE = 16 * 1024 * 1024
GRACE = 10


def say(text):
    # One write: those of several threads would mix a line with the end of another.
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell(context):
    """Shows what came: metadata of the call goes back as initial and as trailing metadata."""
    asked = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-ask-")]
    context.send_initial_metadata([("x-name", NAME)] + asked)
    context.set_trailing_metadata([("x-name", NAME)] + asked)


def echo(request, context):
    tell(context)
    return request


def gather(requests, context):
    tell(context)
    sizes = [len(request) for request in requests]
    return f"{len(sizes)} {sum(sizes)}".encode()


def count(request, context):
    tell(context)
    messages, size = map(int, request.split())
    for ordinal in range(messages):
        yield b"%d:" % ordinal + b"x" * size


def talk(requests, context):
    tell(context)
    for request in requests:
        yield b"heard " + request


def fail(request, context):
    context.set_trailing_metadata([("grpc-status-details-bin", bytes(range(256)))])
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, request.decode())


def await_end(context):
    ended = threading.Event()
    if not context.add_callback(ended.set):
        ended.set()
    say(f"hangs {context.time_remaining():.3f}")
    ended.wait(60)
    say("cancelled" if not context.is_active() else "forgotten")


def hang(request, context):
    await_end(context)
    return b""


def begin(request, context):
    """One message, and then nothing."""
    yield b"begun"
    await_end(context)


def slow(request, context):
    """Takes as many milliseconds as are asked for."""
    time.sleep(int(request) / 1000)
    return NAME.encode()


METHODS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Gather": grpc.stream_unary_rpc_method_handler(gather),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Talk": grpc.stream_stream_rpc_method_handler(talk),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "Begin": grpc.unary_stream_rpc_method_handler(begin),
    "Slow": grpc.unary_unary_rpc_method_handler(slow),
}


def main():
    options = [
        ("grpc.max_receive_message_length", LARGE),
        ("grpc.max_send_message_length", LARGE),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=options)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, METHODS),))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    status = health_pb2.HealthCheckResponse
    servicer.set(SERVICE, status.SERVING)

    events = {"wake": threading.Event(), "asked": []}

    def handle(number, _frame):
        events["asked"].append(number)
        events["wake"].set()

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, handle)
    server.add_insecure_port(f"127.0.0.1:{PORT}")
    server.start()
    say("listening")
    while True:
        events["wake"].wait()
        events["wake"].clear()
        while events["asked"]:
            number = events["asked"].pop(0)
            if number == signal.SIGTERM:
                server.stop(GRACE).wait()
                say("stopped")
                return
            is_well = number == signal.SIGUSR2
            servicer.set(SERVICE, status.SERVING if is_well else status.NOT_SERVING)
            say("serving" if is_well else "not serving")


main()
