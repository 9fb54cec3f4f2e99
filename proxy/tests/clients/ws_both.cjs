// The ws package of Node as client and as server, with the gateway between them.
// usage: node ws_both.cjs SOCKET HOST:PORT. The server listens on the Unix socket, which is the gateway's upstream. NODE_PATH leads to
// the package.
"use strict";

const http = require("node:http");
const { WebSocket, WebSocketServer } = require("ws");

const [socket, address] = process.argv.slice(2);

function check(what, got, expected) {
  if (got !== expected) {
    console.error(`${what}: ${JSON.stringify(got)} instead of ${JSON.stringify(expected)}`);
    process.exit(1);
  }
}

const once = (emitter, event) => new Promise((resolve) => emitter.once(event, (...values) => resolve(values)));

async function talk(number) {
  const client = new WebSocket(`ws://${address}/chat`, { perMessageDeflate: number % 2 === 0 });
  await once(client, "open");
  for (const message of ["hello", "", "ä".repeat(10000), "z".repeat(1_000_000), String(number)]) {
    client.send(message);
    const [data, binary] = await once(client, "message");
    check("echo", data.toString(), message);
    check("text", binary, false);
  }
  client.send(Buffer.from([0, 1, 255]));
  const [data, binary] = await once(client, "message");
  check("binary", `${binary} ${data.toString("hex")}`, "true 0001ff");
  client.ping("are you there");
  check("pong", (await once(client, "pong"))[0].toString(), "are you there");
  client.send("close");
  check("close code", (await once(client, "close"))[0], 4001);
}

async function main() {
  const server = http.createServer();
  const sockets = new WebSocketServer({ server, perMessageDeflate: true });
  sockets.on("connection", (connection) => {
    connection.on("message", (data, binary) => {
      if (!binary && data.toString() === "close") connection.close(4001, "as asked");
      else connection.send(data, { binary });
    });
  });
  server.listen(socket);
  await once(server, "listening");
  await Promise.all(Array.from({ length: 10 }, (_, number) => talk(number)));
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
