// SPDX-License-Identifier: GPL-2.0
// undici and axios as clients of the matrix: client.js undici|axios, then what ../README.md says.
'use strict';
const fs = require('fs');
const zlib = require('zlib');
const http = require('http');
// Where Debian has them.
process.env.NODE_PATH = '/usr/share/nodejs';
require('module').Module._initPaths();

const [library, limitText, file, requests, ...targets] = process.argv.slice(2);
const limit = Number(limitText);
const big = fs.readFileSync(file);
const SHOWN = ['content-type', 'content-length', 'x-kind', 'etag'];

// Each makes a function that asks one server, on connections that it keeps.
const libraries = {
	undici(base) {
		const { Pool } = require('undici');
		const pool = new Pool(base, { connections: 4 });
		return async (method, path, body, headers, signal) => {
			// undici has its own word for "Connection: close".
			const reset = headers.connection === 'close';
			delete headers.connection;
			const res = await pool.request({ method, path, body, headers, signal, reset });
			return { status: res.statusCode, headers: res.headers, body: Buffer.from(await res.body.arrayBuffer()) };
		};
	},
	axios(base) {
		const axios = require('axios');
		const client = axios.create({
			baseURL: base, httpAgent: new http.Agent({ keepAlive: true }), responseType: 'arraybuffer',
			validateStatus: () => true, proxy: false, maxRedirects: 0,
		});
		return async (method, url, data, headers, signal) => {
			const res = await client.request({ method, url, data, headers, signal });
			return { status: res.status, headers: res.headers, body: Buffer.from(res.data) };
		};
	},
};

async function ask(client, via, [kind, method, path, length, flag]) {
	const headers = {};
	if (flag === 'expect') headers.expect = '100-continue';
	if (flag === 'close') headers.connection = 'close';
	const body = Number(length) ? big.subarray(0, Number(length)) : undefined;
	const out = { via, kind, error: null };
	const begin = Date.now();
	try {
		const res = await client(method, path, body, headers, AbortSignal.timeout(limit));
		out.status = res.status;
		out.length = res.body.length;
		out.crc = zlib.crc32(res.body);
		out.headers = {};
		for (const name of SHOWN) if (res.headers[name]) out.headers[name] = String(res.headers[name]);
	} catch (error) {
		out.error = `${error.name} ${error.code} ${error.message}`;
	}
	out.ms = Date.now() - begin;
	console.log(JSON.stringify(out));
}

async function main() {
	for (const target of targets) {
		const at = target.indexOf('=');
		const client = libraries[library](target.slice(at + 1));
		for (const request of requests.split(';')) await ask(client, target.slice(0, at), request.split(','));
	}
	process.exit(0);
}
main();
