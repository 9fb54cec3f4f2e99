// The undici package of Node against the gateway: pipelining, keep-alive, streams, early answers.
// usage: node undici.cjs URL, in front of an origin that echoes. NODE_PATH leads to the package.
"use strict";

const { Client, Pool } = require("undici");
const { Readable } = require("node:stream");

const url = process.argv[2];

function check(what, got, expected) {
  if (got !== expected) {
    console.error(`${what}: ${JSON.stringify(got)} instead of ${JSON.stringify(expected)}`);
    process.exit(1);
  }
}

async function main() {
  // One connection, several requests under way: answers come in order.
  const client = new Client(url, { pipelining: 8 });
  const get = async (path) => (await (await client.request({ path, method: "GET" })).body.text());
  const sizes = Array.from({ length: 64 }, (_, at) => 1 + ((at * 997) % 3000));
  const answers = await Promise.all(sizes.map((size, at) => get(`/${at % 2 ? "bytes" : "chunked"}/${size}`)));
  answers.forEach((answer, at) => check(`pipelined ${at}`, answer.length, sizes[at]));
  await client.close();

  const pool = new Pool(url, { connections: 8 });
  const echo = async (body) => {
    const { statusCode, body: answer } = await pool.request({ path: "/e", method: "PUT", body });
    check("status", statusCode, 200);
    return answer.text();
  };
  check("string", await echo("hello"), "hello");
  check("large", (await echo("x".repeat(1_000_000))).length, 1_000_000);
  const pieces = Readable.from((function* () { for (let at = 0; at < 200; at++) yield String(at % 10).repeat(997); })());
  check("chunked", (await echo(pieces)).length, 200 * 997);
  const all = await Promise.all(Array.from({ length: 200 }, (_, at) => echo(String(at))));
  all.forEach((answer, at) => check(`request ${at}`, answer, String(at)));
  for (const status of [204, 304, 404, 503]) {
    const { statusCode, body } = await pool.request({ path: `/status/${status}`, method: "GET" });
    await body.dump();
    check("status", statusCode, status);
  }
  const head = await pool.request({ path: "/bytes/10", method: "HEAD" });
  await head.body.dump();
  check("HEAD", head.headers["content-length"], "10");
  const expect = await pool.request({ path: "/e", method: "POST", body: "waited", headers: { "x-kept": "1" }, expectContinue: false });
  check("POST", await expect.body.text(), "waited");
  await pool.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
