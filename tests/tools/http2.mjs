// Asks a server by HTTP/2 over TLS, well or badly, and says what came of it: one line of JSON.
//
//   node tests/tools/http2.mjs get URL           one request
//   node tests/tools/http2.mjs stay URL SECONDS  a request each quarter second on one connection; how many were answered
//   node tests/tools/http2.mjs reset URL COUNT   requests given up as soon as they are made (CVE-2023-44487)
//   node tests/tools/http2.mjs headers URL KIB   one request with so large a header
//   node tests/tools/http2.mjs shut URL          a request whose answer is never taken: a window of no bytes
//
// No certificate is refused; `certificate` tells which one came. Exit status 2 when it could not be tried.
import http2 from 'node:http2';

/** Fewer than a server lets be open. */
const RESET_AT_ONCE = 20;

const [mode, address, amount] = process.argv.slice(2);
if (!['get', 'stay', 'reset', 'headers', 'shut'].includes(mode) || !address) {
  console.error('usage: http2.mjs get|stay|reset|headers|shut URL [AMOUNT]');
  process.exit(2);
}
const url = new URL(address), path = url.pathname + url.search;
const startedMs = performance.now();
const session = http2.connect(url.origin, { rejectUnauthorized: false, settings: mode === 'shut' ? { initialWindowSize: 0 } : {} });
let goaway = null, certificate = null;
session.on('goaway', (code) => { goaway = code; });
session.on('error', () => {});
const closed = new Promise((resolve) => session.on('close', resolve));
await new Promise((resolve, reject) => { session.on('connect', resolve); session.on('error', reject); }).catch((error) => {
  console.error(error.message);
  process.exit(2);
});
certificate = session.socket.getPeerCertificate().fingerprint256;

/** Resolves to status and bytes, or to what went wrong. */
function ask(headers = {}) {
  return new Promise((resolve) => {
    const stream = session.request({ ':path': path, ...headers });
    let status = 0, bytes = 0, told = {};
    stream.on('response', (answer) => { status = answer[':status']; told = answer; });
    stream.on('data', (chunk) => { bytes += chunk.length; });
    stream.on('error', (error) => resolve({ status, error: error.code }));
    stream.on('close', () => resolve({ status, bytes, type: told['content-type'] ?? null }));
    stream.end();
  });
}

let result = {};
if (mode === 'get') result = await ask();
if (mode === 'stay') {
  let answered = 0;
  for (const untilMs = startedMs + Number(amount) * 1000; performance.now() < untilMs;) {
    if ((await ask()).status === 200) answered += 1;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
  result = { answered };
}
if (mode === 'reset') {
  let sent = 0;
  for (; sent < Number(amount) && !session.closed && !session.destroyed; sent += RESET_AT_ONCE) {
    const streams = Array.from({ length: RESET_AT_ONCE }, () => session.request({ ':path': path }));
    streams.forEach((stream) => stream.on('error', () => {}));
    // nghttp2 takes back a request that is given up before it was written: nothing at all would be sent.
    await new Promise((resolve) => setTimeout(resolve, 1));
    streams.forEach((stream) => stream.close(http2.constants.NGHTTP2_CANCEL));
  }
  result = { sent };
}
if (mode === 'headers') result = await ask({ 'x-much': 'y'.repeat(Number(amount) * 1024) });
if (mode === 'shut') {
  ask();
}
const ended = await Promise.race([closed.then(() => true), new Promise((resolve) => setTimeout(resolve, mode === 'shut' ? 20_000 : mode === 'reset' ? 5000 : 0, false))]);
console.log(JSON.stringify({ mode, ...result, certificate, goaway, ended, ms: Math.round(performance.now() - startedMs) }));
session.destroy();
