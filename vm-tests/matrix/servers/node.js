// SPDX-License-Identifier: GPL-2.0
// Node.js as a server of the matrix: HOST PORT BIG_FILE; ../README.md has the paths.
'use strict';
const http = require('http');
const fs = require('fs');
const [host, port, file] = process.argv.slice(2);
const big = fs.readFileSync(file);
const plain = { 'Content-Type': 'text/plain', 'x-kind': 'plain' };

function send(res, status, headers, body) {
	res.writeHead(status, { ...headers, 'Content-Length': Buffer.byteLength(body) });
	res.end(body);
}

const paths = {
	'/plain': (req, res) => send(res, 200, plain, 'plain body\n'),
	// Node.js adds "Connection: keep-alive" and "Keep-Alive: timeout=5" by itself.
	'/keepalive': (req, res) => send(res, 200, { ...plain, 'x-kind': 'keepalive' }, 'kept alive\n'),
	'/early': (req, res) => {
		res.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' });
		send(res, 200, { ...plain, 'x-kind': 'early' }, 'after 103\n');
	},
	'/chunked2': (req, res) => {
		res.writeHead(200, { ...plain, 'x-kind': 'chunked2' });
		res.write('first part\n');
		setTimeout(() => res.end('second part\n'), 50);
	},
	'/close': (req, res) => {
		res.useChunkedEncodingByDefault = false;
		res.writeHead(200, { ...plain, 'x-kind': 'close', Connection: 'close' });
		res.write('ended by\n');
		res.end('close\n');
	},
	'/204': (req, res) => res.writeHead(204, { 'x-kind': '204' }).end(),
	'/304': (req, res) => res.writeHead(304, { 'x-kind': '304', etag: '"e"' }).end(),
	'/404': (req, res) => send(res, 404, { ...plain, 'x-kind': '404' }, 'not here\n'),
	'/echo': (req, res) => {
		const parts = [];
		req.on('data', (part) => parts.push(part));
		req.on('end', () => send(res, 200, { ...plain, 'x-kind': 'echo' }, Buffer.concat(parts)));
	},
	'/big': (req, res) => send(res, 200, { ...plain, 'x-kind': 'big' }, big),
};

const server = http.createServer((req, res) => (paths[req.url] || paths['/404'])(req, res));
server.listen({ host, port: Number(port) });
