"""httpx (HTTP/1.1) against the gateway: bodies of every framing, streams both ways, many requests at once.

usage: httpx_client.py URL, in front of an origin that echoes (see tests/gateway/origin.rs)
"""

import asyncio
import sys

import httpx

URL = sys.argv[1]


def check(what, got, expected):
    if got != expected:
        sys.exit(f"{what}: {got!r} instead of {expected!r}")


def plain():
    with httpx.Client(base_url=URL, timeout=20) as client:
        check("GET", client.get("/bytes/10").text, "abcdefghij")
        check("chunked GET", len(client.get("/chunked/100000").content), 100000)
        check("until close", len(client.get("/close/100000").content), 100000)
        check("HEAD", client.head("/bytes/10").headers["content-length"], "10")
        check("POST", client.post("/e", content=b"x" * 1000).content, b"x" * 1000)
        check("form", client.post("/e", data={"a": "1", "b": "2"}).text, "a=1&b=2")
        check("204", client.get("/status/204").status_code, 204)
        check("404", client.get("/status/404").status_code, 404)

        def pieces():
            for at in range(100):
                yield bytes([65 + at % 26]) * 1000

        check("chunked POST", client.post("/e", content=pieces()).content, b"".join(pieces()))
        with client.stream("GET", "/bytes/1000000") as response:
            check("stream", sum(len(piece) for piece in response.iter_bytes()), 1000000)
        check("multipart", client.post("/e", files={"f": b"\xff" * 70000}).content.count(b"\xff"), 70000)


async def many():
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=URL, timeout=20, limits=limits) as client:
        answers = await asyncio.gather(*(client.post("/e", content=str(at)) for at in range(300)))
        for at, answer in enumerate(answers):
            check(f"request {at}", answer.text, str(at))


plain()
asyncio.run(many())
