"""The `websockets` package as client and as server, with the gateway between them.

usage: websockets_both.py SOCKET HOST:PORT
The server listens on the Unix socket, which is the gateway's upstream; the client connects to HOST:PORT.
"""

import asyncio
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import unix_serve

SOCKET, ADDRESS = sys.argv[1:]


def check(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: {got!r} instead of {expected!r}")


async def echo(connection):
    async for message in connection:
        await connection.send(message)
        if message == "close":
            await connection.close(4001, "as asked")


async def talk(number):
    async with connect(f"ws://{ADDRESS}/chat", max_size=2**24) as connection:
        for message in ["hello", b"\x00\x01", "", "ä" * 10000, b"z" * 1_000_000, str(number)]:
            await connection.send(message)
            check("echo", await connection.recv(), message)
        pong = await connection.ping()
        await pong
        await connection.send("close")
        check("last", await connection.recv(), "close")
        try:
            await connection.recv()
        except websockets.ConnectionClosed as closed:
            check("close code", closed.rcvd.code, 4001)
        else:
            sys.exit("the connection was not closed")


async def main():
    async with unix_serve(echo, SOCKET, max_size=2**24):
        await asyncio.wait_for(asyncio.gather(*(talk(number) for number in range(10))), 30)


asyncio.run(main())
