"""A WebSocket client over HTTP/1.1: what a server that echoes sends back.

    python websocket.py URL [CERTIFICATE]

One line of JSON tells what was not as it should be.
"""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect

URL = sys.argv[1]
PATIENCE = 20


async def talk(socket):
    wrong = []

    async def check(what, message):
        await socket.send(message)
        heard = b"" if isinstance(message, bytes) else ""
        # A server may answer in parts, each of which is a message here.
        while len(heard) < len(message):
            heard += await asyncio.wait_for(socket.recv(), PATIENCE)
        if heard != message:
            wrong.append(what)

    await check("text", "hello \N{SNOWMAN}")
    await check("binary", bytes(range(256)) * 4)
    for ordinal in range(200):
        await check(f"message {ordinal}", f"message {ordinal}")
    await check("large", b"x" * 200_000)
    pong = await socket.ping()
    await asyncio.wait_for(pong, PATIENCE)
    print("holding", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await check("after a rest", "still there")
    await socket.close(1000, "done")
    if socket.close_code != 1000:
        wrong.append(f"closed with {socket.close_code}")
    return wrong


async def main():
    context = ssl.create_default_context(cafile=sys.argv[2]) if len(sys.argv) > 2 else None
    async with connect(URL, ssl=context, open_timeout=PATIENCE, max_size=2**22, proxy=None) as socket:
        print(json.dumps({"wrong": await talk(socket)}), flush=True)


asyncio.run(main())
