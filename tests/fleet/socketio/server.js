// A socket.io server as it is by default: what it knows of a client is in its own memory.
// It must say on standard output what it refuses, for the test to count.
//     node server.js NAME PORT
"use strict";

const http = require("node:http");
const { Server } = require("socket.io");

const [name, port] = process.argv.slice(2);
const server = http.createServer((_, answer) => answer.end(name));
const io = new Server(server);

io.on("connection", (socket) => {
  let count = 0;
  socket.on("add", (answer) => {
    count += 1;
    answer({ name, count, transport: socket.conn.transport.name });
  });
});
// Code 1 is "Session ID unknown".
io.engine.on("connection_error", (error) => console.log(`refused ${error.code} ${error.message}`));
server.listen(Number(port), "127.0.0.1", () => console.log("listening"));
