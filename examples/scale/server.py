"""A small application server with sessions in its own memory: each page view is counted, and takes 40 ms.

It is called with its name and the directory in which it puts the list by which weir finds it.
"""

import json
import os
import secrets
import sys
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAME, DIRECTORY = sys.argv[1:]
VIEWS = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer("ok\n")
        cookies = SimpleCookie(self.headers.get("Cookie", ""))
        session = cookies["JSESSIONID"].value if "JSESSIONID" in cookies else None
        fresh = session not in VIEWS
        if fresh:
            session = f"{secrets.token_hex(8)}.{NAME}"
        VIEWS[session] = VIEWS.get(session, 0) + 1
        time.sleep(0.04)
        self.answer(f"{NAME} {VIEWS[session]}\n", session if fresh else None)

    def answer(self, text, session=None):
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
        if session:
            head += f"Set-Cookie: JSESSIONID={session}; Path=/; HttpOnly\r\n"
        self.wfile.write((head + "\r\n" + text).encode())

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


server = Server(("127.0.0.1", 0), Handler)
path = os.path.join(DIRECTORY, NAME + ".json")
with open(path + ".draft", "w") as file:
    json.dump([{"name": NAME, "address": "127.0.0.1:%d" % server.server_port}], file)
os.rename(path + ".draft", path)
server.serve_forever()
