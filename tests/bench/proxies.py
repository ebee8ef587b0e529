"""The proxies under test: how each is configured and started, as alike as they can be.

Every one has a single worker pinned to PROXY_CORE, keeps connections alive on both sides and writes no access log.
weir alone also has 200 routes, active health checks, metrics, forwarding headers and a sticky cookie to read.
"""

import os
import re
import socket
import subprocess
import time
import urllib.request

PROXY_CORE = 0
LOAD_CORE = 1
# The host of one of weir's 200 routes; the others take any host.
HOST = "app137.example.com"

HAPROXY = """\
global
    nbthread 1
    maxconn 9600
    {tune}
defaults
    mode http
    timeout connect 5s
    timeout client 300s
    timeout server 300s
    timeout http-keep-alive 300s
    maxconn 9600
    balance roundrobin
frontend web
    bind 127.0.0.1:{port}
    bind 127.0.0.1:{secure} ssl crt {certificate}/both.pem alpn h2,http/1.1
    default_backend was
backend was
    http-reuse always
    compression algo gzip
    compression type text/html
{servers}
"""

NGINX = """\
{user}
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.err crit;
events {{ worker_connections 19500; multi_accept on; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
    tcp_nodelay on;
    proxy_temp_path {directory}/t1; client_body_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
    uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
    upstream was {{
{servers}
        keepalive 600; keepalive_requests 1000000000; keepalive_timeout 300s;
    }}
    server {{
        listen 127.0.0.1:{port} reuseport backlog=4096;
        listen 127.0.0.1:{secure} ssl http2 reuseport backlog=4096;
        ssl_certificate {certificate}/cert.pem;
        ssl_certificate_key {certificate}/key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:10m;
        gzip on; gzip_comp_level 1; gzip_proxied any; gzip_http_version 1.1;
        location / {{
            proxy_pass http://was;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffer_size 16k; proxy_buffers 8 16k;
        }}
    }}
}}
"""

WEIR = """\
workers = 1
state_dir = "{directory}/state"

[timeouts]
keep_alive = "300s"
upstream_idle = "300s"

[admin]
bind = "127.0.0.1:{admin}"

[log]
access = "off"

[listeners.web]
bind = ["127.0.0.1:{port}"]

[listeners.secure]
bind = ["127.0.0.1:{secure}"]
tls.certificates = [{{ cert = "{certificate}/cert.pem", key = "{certificate}/key.pem" }}]

[[routes]]
hosts = ["{host}"]
path = "/page"
pool = "was"
filters = [{{ type = "compress", algorithms = ["gzip"] }}]

[pools.was]
balancer = "round-robin"
max_idle = 600
backends = [{backends}]

[pools.was.health]
type = "http"
path = "/0"
interval = "2s"

"""

WEIR_ROUTE = """\
[[routes]]
hosts = ["app{number}.example.com"]
pool = "was"
sticky = {{ mode = "cookie-hash", sessions = "local" }}

"""


class Proxy:
    """A started proxy and the processes that belong to it."""

    def __init__(self, name, version, ports, child, log):
        self.name, self.version, self.child, self.log = name, version, child, log
        self.port, self.secure = ports

    def url(self, path):
        """The address of `path` behind this proxy."""
        return f"http://127.0.0.1:{self.port}{path}"

    def secure_url(self, path):
        """The same within TLS."""
        return f"https://127.0.0.1:{self.secure}{path}"

    def processes(self):
        """Process ids of the whole tree."""
        found, new = [], [self.child.pid]
        while new:
            found += new
            new = [child for parent in new for child in children(parent)]
        return found

    def stop(self):
        """Ends the whole tree."""
        tree = self.processes()
        self.child.terminate()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        # Workers may outlive who started them.
        for process in tree:
            if process != self.child.pid:
                kill(process)

    def wait_ready(self):
        """Returns once an answer of the origin came through."""
        deadline = time.monotonic() + 20
        while True:
            try:
                request = urllib.request.Request(self.url("/128"), headers={"Host": HOST})
                with urllib.request.urlopen(request, timeout=2) as answer:
                    if len(answer.read()) == 128:
                        return
            except OSError:
                pass
            if self.child.poll() is not None or time.monotonic() > deadline:
                with open(self.log, encoding="utf-8", errors="replace") as log:
                    raise SystemExit(f"{self.name} does not answer:\n{log.read()[-3000:]}")
            time.sleep(0.02)


def children(parent):
    """Process ids of the children of every thread of `parent`."""
    found = []
    try:
        for thread in os.listdir(f"/proc/{parent}/task"):
            with open(f"/proc/{parent}/task/{thread}/children", encoding="ascii") as file:
                found += map(int, file.read().split())
    except OSError:
        pass  # it has just ended
    return found


def kill(process):
    """SIGKILL, if the process is still there."""
    try:
        os.kill(process, 9)
    except ProcessLookupError:
        pass


def free_port(taken=set()):
    """A loopback port below the range of outgoing connections that nothing listens on."""
    for port in range(12000 + os.getpid() % 15000, 32000):
        with socket.socket() as probe:
            # So that a connection in TIME_WAIT does not count as a listener.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if port in taken or probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
            try:
                with socket.socket() as listener:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listener.bind(("127.0.0.1", port))
            except OSError:
                continue
        taken.add(port)
        return port
    raise SystemExit("no free port")


def spawn(core, command, log):
    """Starts `command` on `core`; it ends when this script does."""
    with open(log, "wb") as output:
        pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *command]
        return subprocess.Popen(pinned, stdin=subprocess.DEVNULL, stdout=output, stderr=output)


def version(command):
    """The version in what `command` prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+[\w.+~-]*", done.stdout + done.stderr)
    return found.group(0) if found else "of unknown version"


def write(path, text):
    """Writes a file; its path."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def start(name, program, directory, origins, makers=None):
    """Starts the proxy `name` before `origins` (ports), as one of `makers` configures it, and waits until it answers."""
    directory = os.path.join(directory, f"{name}-{free_port()}")
    os.makedirs(directory)
    ports = free_port(), free_port()
    certificate(directory)
    maker = (makers or {"weir": weir, "nginx": nginx}).get(name, haproxy)
    command, asked = maker(name, program, directory, ports, origins)
    log = os.path.join(directory, "log")
    proxy = Proxy(name, version(asked), ports, spawn(PROXY_CORE, command, log), log)
    try:
        proxy.wait_ready()
    except BaseException:
        proxy.stop()
        raise
    return proxy


def certificate(directory):
    """A P-256 certificate for this run."""
    key, cert = f"{directory}/key.pem", f"{directory}/cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
               "-subj", "/CN=bench", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run(command, check=True, capture_output=True)
    with open(key, encoding="ascii") as one, open(cert, encoding="ascii") as other:
        write(f"{directory}/both.pem", other.read() + one.read())


def haproxy(name, program, directory, ports, origins):
    """`haproxy-big` has buffers that hold a whole 64 KiB answer."""
    servers = "\n".join(f"    server s{origin} 127.0.0.1:{origin}" for origin in origins)
    tune = "tune.bufsize 139264" if name == "haproxy-big" else ""
    config = write(f"{directory}/haproxy.cfg", HAPROXY.format(
        port=ports[0], secure=ports[1], certificate=directory, servers=servers, tune=tune))
    return [program, "-db", "-f", config], [program, "-v"]


def nginx(_name, program, directory, ports, origins):
    """As root, the worker stays root: its directories may be out of reach of anybody else."""
    servers = "\n".join(f"        server 127.0.0.1:{origin};" for origin in origins)
    user = "user root;" if os.geteuid() == 0 else ""
    config = NGINX.format(port=ports[0], secure=ports[1], certificate=directory, servers=servers, directory=directory, user=user)
    return [program, "-c", write(f"{directory}/nginx.conf", config)], [program, "-v"]


def weir(_name, program, directory, ports, origins):
    """With all that a product has on."""
    backends = ", ".join(f'"127.0.0.1:{origin}"' for origin in origins)
    text = WEIR.format(port=ports[0], secure=ports[1], certificate=directory, host=HOST, admin=free_port(), backends=backends,
                       directory=directory)
    text += "".join(WEIR_ROUTE.format(number=number) for number in range(200))
    return [program, "run", "-c", write(f"{directory}/weir.toml", text)], [program, "--version"]
