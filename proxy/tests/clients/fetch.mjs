// fetch of Node (undici) against the gateway. usage: node fetch.mjs URL, in front of an origin that echoes.

const url = process.argv[2];

function check(what, got, expected) {
  if (got !== expected) {
    console.error(`${what}: ${JSON.stringify(got)} instead of ${JSON.stringify(expected)}`);
    process.exit(1);
  }
}

const text = async (path, options) => (await fetch(url + path, options)).text();

check("GET", await text("/bytes/10"), "abcdefghij");
check("chunked GET", (await text("/chunked/100000")).length, 100000);
check("until close", (await text("/close/100000")).length, 100000);
check("POST", await text("/e", { method: "POST", body: "hello" }), "hello");
check("PUT", await text("/e", { method: "PUT", body: new Uint8Array(70000).fill(97) }), "a".repeat(70000));
check("404", (await fetch(url + "/status/404")).status, 404);
check("204", (await fetch(url + "/status/204")).status, 204);
check("HEAD", (await fetch(url + "/bytes/10", { method: "HEAD" })).headers.get("content-length"), "10");

const pieces = new ReadableStream({
  start(controller) {
    for (let at = 0; at < 100; at++) controller.enqueue(new TextEncoder().encode(String(at % 10).repeat(1000)));
    controller.close();
  },
});
check("chunked POST", (await text("/e", { method: "POST", body: pieces, duplex: "half" })).length, 100000);

const answers = await Promise.all(Array.from({ length: 200 }, (_, at) => text("/e", { method: "POST", body: String(at) })));
answers.forEach((answer, at) => check(`request ${at}`, answer, String(at)));
