// SPDX-License-Identifier: GPL-2.0
// A Node.js server that says what it got; echo.py says what its paths do.
//
//     node echo.js HOST PORT NAME LOG
'use strict';
const fs = require('fs');
const http = require('http');
const zlib = require('zlib');

const [host, port, name, logName] = process.argv.slice(2);
const log = fs.openSync(logName, 'a');
let connections = 0;

// A table-driven CRC-32 for a Node.js whose zlib has none.
const table = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});
function crc32(data, start) {
  if (zlib.crc32) return zlib.crc32(data, start);
  let crc = ~start;
  for (const byte of data) crc = (crc >>> 8) ^ table[(crc ^ byte) & 255];
  return ~crc >>> 0;
}

const block = Buffer.alloc(65521);
for (let i = 0, x = 1; i < block.length; i++) {
  x = (Math.imul(x, 1103515245) + 12345) >>> 0;
  block[i] = x >>> 16;
}

function* pattern(length) {
  for (; length > 0; length -= block.length) yield block.subarray(0, Math.min(length, block.length));
}

function echo(req, res) {
  let crc = 0;
  let length = 0;
  let start = Buffer.alloc(0);
  req.on('data', (piece) => {
    crc = crc32(piece, crc);
    length += piece.length;
    if (start.length < 4096) start = Buffer.concat([start, piece]).subarray(0, 4096);
  });
  req.on('end', () => {
    const headers = [];
    for (let i = 0; i < req.rawHeaders.length; i += 2) headers.push([req.rawHeaders[i], req.rawHeaders[i + 1]]);
    const said = { backend: name, method: req.method, path: req.url, headers, length, crc, body: start.toString('latin1') };
    const body = Buffer.from(JSON.stringify(said));
    res.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': body.length });
    res.end(body);
  });
}

function bytes(req, res, parts, query) {
  const length = Number(parts[1]);
  let crc = 0;
  for (const piece of pattern(length)) crc = crc32(piece, crc);
  const headers = { 'x-crc': crc };
  if (query === 'close') headers.Connection = 'close';
  else if (query !== 'chunked') headers['Content-Length'] = length;
  if (query === 'close') res.useChunkedEncodingByDefault = false;
  res.writeHead(200, headers);
  const pieces = pattern(length);
  (function next() {
    for (let item = pieces.next(); !item.done; item = pieces.next()) {
      if (!res.write(item.value)) return res.once('drain', next);
    }
    res.end();
  })();
}

const actions = {
  bytes,
  mirror: (req, res) => {
    res.writeHead(200);
    req.pipe(res);
  },
  early: (req, res) => {
    res.writeHead(200, { 'Content-Length': 6 });
    res.end('early\n');
    req.resume();
  },
  status: (req, res, parts) => {
    res.writeHead(Number(parts[1]));
    res.end();
  },
  sleep: (req, res, parts) => setTimeout(() => echo(req, res), Number(parts[1])),
  interim: (req, res) => {
    res.writeEarlyHints({ link: '</a.css>; rel=preload' });
    res.writeEarlyHints({ link: '</b.css>; rel=preload' });
    res.end('final\n');
  },
  trailers: (req, res) => {
    res.writeHead(200, { Trailer: 'x-sum' });
    res.write('hello ');
    res.write('world');
    res.addTrailers({ 'x-sum': '42' });
    res.end();
  },
  http10: (req, res) => req.socket.end('HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold\n'),
  abort: (req, res, parts) => {
    const length = Number(parts[1]);
    res.writeHead(200, { 'Content-Length': 2 * length });
    res.write(Buffer.alloc(length, 'x'), () => req.socket.resetAndDestroy());
  },
};

const server = http.createServer((req, res) => {
  fs.writeSync(log, `${req.socket.number} ${req.method} ${req.url}\n`);
  const [path, query] = req.url.split('?');
  const parts = path.replace(/^\//, '').split('/');
  (Object.hasOwn(actions, parts[0]) ? actions[parts[0]] : echo)(req, res, parts, query);
});
server.on('connection', (socket) => {
  socket.number = ++connections;
  socket.setNoDelay(true);
  socket.on('error', () => {});
});
server.keepAliveTimeout = 600000;
server.requestTimeout = 0;
server.headersTimeout = 0;
server.listen({ host: host.replace(/[[\]]/g, ''), port: Number(port), backlog: 4096 });
