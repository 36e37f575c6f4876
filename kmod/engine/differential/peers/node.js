// SPDX-License-Identifier: GPL-2.0
'use strict';
// Node.js's own parser (llhttp), strict as it is by default.  Messages come as kind, length and bytes; one line answers each.
// The parser is fed byte by byte, so that the byte that ends the message is known.

const { HTTPParser } = process.binding('http_parser');

function parse(kind, data) {
  const parser = new HTTPParser();
  parser.initialize(kind === 'q' ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {});
  let interim = false;
  let at = 0;
  let end = -1;
  parser[HTTPParser.kOnHeaders] = () => {};
  parser[HTTPParser.kOnHeadersComplete] =
    (major, minor, headers, method, url, status) => {
      interim = kind !== 'q' && status >= 100 && status < 200 && status !== 101;
      return kind === 'h' ? 1 : 0;   // 1: no body, as for HEAD
    };
  parser[HTTPParser.kOnBody] = () => {};
  parser[HTTPParser.kOnMessageComplete] = () => {
    if (!interim && end < 0) end = at;
  };
  for (; at < data.length && end < 0; ) {
    at++;
    const result = parser.execute(data.subarray(at - 1, at));
    if (result instanceof Error) {
      if (end >= 0) break;
      return `err ${result.code}`;
    }
  }
  if (end >= 0) return `ok ${end}`;
  const result = parser.finish();
  if (end >= 0) return `ok ${end}`;
  return result instanceof Error ? `err ${result.code}` : 'partial';
}

let input = Buffer.alloc(0);
process.stdin.on('data', (piece) => {
  input = Buffer.concat([input, piece]);
  let answers = '';
  while (input.length >= 5) {
    const length = input.readUInt32BE(1);
    if (input.length < 5 + length) break;
    const kind = String.fromCharCode(input[0]);
    answers += parse(kind, input.subarray(5, 5 + length)) + '\n';
    input = input.subarray(5 + length);
  }
  process.stdout.write(answers);
});
