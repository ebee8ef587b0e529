"""What is measured: CPU time, memory and system calls of a proxy, and what wrk saw meanwhile."""

import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from proxies import HOST, LOAD_CORE

CONNECTIONS = 64
TICK = os.sysconf("SC_CLK_TCK")
UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}
SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


class Failure(Exception):
    """A measurement during which requests failed."""


def cpu_seconds(proxy):
    """User and system time of the whole process tree so far."""
    total = 0
    for process in proxy.processes():
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def memory(proxy, key):
    """KiB of the whole process tree: `VmRSS` now, `VmHWM` at its highest."""
    total = 0
    for process in proxy.processes():
        with open(f"/proc/{process}/status", encoding="utf-8") as file:
            total += int(re.search(rf"^{key}:\s+(\d+)", file.read(), re.M).group(1))
    return total


def fields(cookie):
    """The request fields that every proxy gets, byte for byte the same."""
    return [f"Host: {HOST}", f"Cookie: {cookie}", "User-Agent: wrk", "Accept: */*"]


def wrk(proxy, url, seconds, cookie, close=False, gzip=False):
    """One run of wrk: requests, their CPU time in µs each, the p99 in ms, bytes of an answer, and the share of a core."""
    command = ["taskset", "-c", str(LOAD_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
    for field in fields(cookie) + (["Connection: close"] if close else []) + (["Accept-Encoding: gzip"] if gzip else []):
        command += ["-H", field]
    before, began = cpu_seconds(proxy), time.monotonic()
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    used, took = cpu_seconds(proxy) - before, time.monotonic() - began
    text = done.stdout + done.stderr
    requests = re.search(r"(\d+) requests in", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s|m)\b", text)
    if done.returncode or not requests or not p99 or "Socket errors" in text or "Non-2xx" in text:
        raise Failure(f"{proxy.name} {url}: wrk said\n{text}")
    count = int(requests.group(1))
    read = re.search(r"requests in [\d.]+\w+, ([\d.]+)([KMG]?)B read", text)
    size = float(read.group(1)) * SIZES[read.group(2)] / max(count, 1) if read else 0.0
    return {
        "requests": count,
        "rate": count / took,
        "cpu": used * 1e6 / max(count, 1),
        "p99": float(p99.group(1)) * UNITS[p99.group(2)],
        "size": size,
        "busy": used / took,
    }


def h2load(proxy, url, seconds, cookie):
    """One run of h2load with 32 connections and 16 streams each: the same figures but for the p99."""
    command = ["taskset", "-c", str(LOAD_CORE), "h2load", "-t1", "-c32", "-m16", f"-D{seconds}"]
    for field in fields(cookie):
        name, _, value = field.partition(": ")
        command += ["-H", f"{':authority' if name == 'Host' else name.lower()}: {value}"]
    before, began = cpu_seconds(proxy), time.monotonic()
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    used, took = cpu_seconds(proxy) - before, time.monotonic() - began
    text = done.stdout + done.stderr
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", text)
    classes = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", text)
    size = re.search(r"traffic: .*\((\d+)\) total", text)
    if done.returncode or not counts or not classes or not size or "protocol: h2" not in text:
        raise Failure(f"{proxy.name} {url}: h2load said\n{text}")
    count = int(counts.group(1))
    return {
        "requests": count,
        "rate": count / took,
        "cpu": used * 1e6 / max(count, 1),
        "size": int(size.group(1)) / max(count, 1),
        "busy": used / took,
    }


def counters(proxy, seconds, cookie):
    """System calls per request at full load, instructions per request if the machine counts them, and by which tool."""
    if shutil.which("perf"):
        with tempfile.NamedTemporaryFile("r") as output:
            events = ["-e", "raw_syscalls:sys_enter", "-e", "instructions"]
            command = ["perf", "stat", "-x,", "-o", output.name, *events, "-p", processes_of(proxy)]
            requests = watched(command, proxy, seconds, cookie)
            text = output.read()
        calls, instructions = (counted(text, event) for event in ("raw_syscalls", "instructions"))
        if calls:
            return calls / requests, instructions and instructions / requests, "perf"
    if shutil.which("strace"):
        with tempfile.NamedTemporaryFile("r") as output:
            command = ["strace", "-f", "-c", "-o", output.name, "-p", processes_of(proxy)]
            requests = watched(command, proxy, seconds, cookie)
            text = output.read()
        total = re.search(r"^100\.00\s+\S+\s+\S+\s+(\d+).*total$", text, re.M)
        if total:
            return int(total.group(1)) / requests, None, "strace"
    return None, None, "neither perf nor strace works here"


def processes_of(proxy):
    """The tree's process ids, as perf and strace want them."""
    return ",".join(map(str, proxy.processes()))


def watched(command, proxy, seconds, cookie):
    """Runs wrk while `command` looks on; the number of requests."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as watcher:
        time.sleep(0.3)  # it says nothing when it has attached; what it misses at first is noise
        requests = wrk(proxy, proxy.url("/128"), seconds, cookie)["requests"]
        watcher.send_signal(signal.SIGINT)
        watcher.wait()
    return requests


def counted(text, event):
    """The number of `event` in the output of `perf stat -x,`; None where it is not supported."""
    found = re.search(rf"^(\d+),[^,]*,{event}", text, re.M)
    return int(found.group(1)) if found else None


def idle_memory(proxy, count, cookie):
    """KiB of resident memory per idle kept connection, each after one request, and how many there were."""
    request = "\r\n".join(["GET /128 HTTP/1.1", *fields(cookie), "", ""]).encode()
    held = []
    try:
        ask(proxy, request, 200, held)
        before = memory(proxy, "VmRSS")
        ask(proxy, request, count, held)
        return (memory(proxy, "VmRSS") - before) / count
    finally:
        for connection in held:
            connection.close()


def ask(proxy, request, count, held):
    """Opens `count` connections, sends one request on each and keeps them in `held`."""
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", proxy.port), 10)
        held.append(connection)
        connection.sendall(request)
        answer = b""
        while not (answer.endswith(b"w" * 128) and b"\r\n\r\n" in answer):
            piece = connection.recv(65536)
            if not piece:
                raise Failure(f"{proxy.name}: closed instead of an answer, after {answer!r}")
            answer += piece
        if not answer.startswith(b"HTTP/1.1 200"):
            raise Failure(f"{proxy.name}: {answer!r}")


def raise_descriptors(wanted):
    """Lets this process and its children open `wanted` descriptors, or as many as the system allows; that number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
