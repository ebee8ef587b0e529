// Browsers before a socket.io fleet: each polls first, upgrades to a WebSocket, then counts up at its server.
// It must never come back after an error: a browser that does hides what went wrong.
//     node client.js URL CLIENTS ROUNDS TRANSPORTS
// One line of JSON tells how it went; the connections stay open until standard input ends.
"use strict";

const { io } = require("socket.io-client");

const [url, clients, rounds, transports] = process.argv.slice(2);
const PATIENCE = 20_000;

function browser() {
  return new Promise((resolve) => {
    const seen = { servers: new Set(), count: 0, upgraded: false, error: null };
    const socket = io(url, {
      forceNew: true,
      reconnection: false,
      timeout: PATIENCE,
      transports: transports.split(","),
      // Keeps cookies, as a browser does.
      withCredentials: true,
    });
    const done = (error) => {
      seen.error ??= error ?? null;
      resolve(seen);
    };
    const add = () =>
      socket.timeout(PATIENCE).emit("add", (error, answer) => {
        if (error) return done(`no answer: ${error.message}`);
        seen.servers.add(answer.name);
        seen.count += 1;
        seen.upgraded ||= answer.transport === "websocket";
        if (answer.count !== seen.count) return done(`count ${answer.count}, not ${seen.count}`);
        if (seen.count < Number(rounds) || !seen.upgraded) return setTimeout(add, 10);
        return done();
      });
    socket.on("connect", add);
    socket.on("connect_error", (error) => done(error.message));
    socket.on("disconnect", (reason) => done(reason));
    setTimeout(() => done("timeout"), PATIENCE).unref();
  });
}

async function main() {
  const seen = await Promise.all(Array.from({ length: Number(clients) }, browser));
  const errors = {};
  const servers = {};
  for (const { error, servers: own } of seen) {
    if (error) errors[error] = (errors[error] ?? 0) + 1;
    for (const name of own) servers[name] = (servers[name] ?? 0) + 1;
  }
  console.log(
    JSON.stringify({
      good: seen.filter((one) => !one.error && one.upgraded && one.servers.size === 1).length,
      errors,
      servers,
    }),
  );
  process.stdin.resume().on("end", () => process.exit(0));
}

main();
