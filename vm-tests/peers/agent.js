// SPDX-License-Identifier: GPL-2.0
// Requests over a keep-alive agent, several at once. node agent.js HOST PORT COUNT
'use strict';
const http = require('http');

const [host, port, count] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
const sockets = new Set();

function one(number) {
  return new Promise((resolve, reject) => {
    const body = Buffer.alloc(number * 100, number & 255);
    const req = http.request({ host, port, agent, method: 'POST', path: `/echo/${number}` }, (res) => {
      let text = '';
      res.setEncoding('utf8');
      res.on('data', (piece) => (text += piece));
      res.on('end', () => {
        const said = JSON.parse(text);
        if (said.path !== `/echo/${number}` || said.length !== body.length) reject(new Error(text));
        else resolve();
      });
      res.on('error', reject);
    });
    req.on('socket', (socket) => sockets.add(socket));
    req.on('error', reject);
    if (number % 2) {
      req.setHeader('Content-Length', body.length);
      req.end(body);
    } else {
      req.write(body.subarray(0, body.length / 2));
      req.end(body.subarray(body.length / 2));
    }
  });
}

Promise.all(Array.from({ length: count }, (_, number) => one(number))).then(
  () => {
    console.log('node ok', count, 'requests', sockets.size, 'sockets');
    agent.destroy();
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
