// Drives the real studio page in Chromium with a made-up camera, microphone and screen, and says what it showed: one
// line of JSON at each change of state, and one at the end.
//
//   node tests/tools/webrtc-studio.mjs BASE STREAM KEY SECONDS [--source screen|camera] [--layers 1|2|3] [--bitrate 1500]
//
// BASE: the server's address, as http://127.0.0.1:8080. Environment: SHOT=picture.png (taken while live), CHROMIUM.
// Exit status: 0 when it was live and stopped as asked, 1 when not, 2 when it could not be tried.
import { parseArgs } from 'node:util';
import { until, within, withPage } from './webrtc-browser.mjs';

const { positionals: [base, stream, key, seconds], values } = parseArgs({
  allowPositionals: true,
  options: { source: { type: 'string', default: 'camera' }, layers: { type: 'string', default: '1' }, bitrate: { type: 'string', default: '1500' } },
});
if (!base || !stream || !key || !(Number(seconds) > 0)) {
  console.error('usage: webrtc-studio.mjs BASE STREAM KEY SECONDS [--source screen|camera] [--layers 1|2|3] [--bitrate 1500]');
  process.exit(2);
}
/** From "Go live" to "Live": permission, offer, checks, handshake. */
const PATIENCE_MS = 15_000;

withPage(async (page) => {
  await page.goto(`${base.replace(/\/$/, '')}/studio?stream=${encodeURIComponent(stream)}`);
  await page.waitForFunction('window.codecastStudio');
  await page.fill('#key', key);
  await page.check(`input[name=picture][value=${values.source}]`);
  await page.selectOption('#layers', values.layers);
  await page.fill('#bitrate', values.bitrate);
  let told = '';
  const look = async () => {
    const seen = await within('the page', page.evaluate(() => ({ ...window.codecastStudio })));
    const line = `${seen.state} ${seen.error}`;
    if (line !== told) console.log(JSON.stringify({ state: seen.state, error: seen.error }));
    told = line;
    return seen;
  };
  await page.click('#go');
  const startedMs = Date.now();
  const begun = await until(PATIENCE_MS, async () => { const seen = await look(); return (seen.state === 'live' || seen.state === 'failed') && seen; });
  const liveMs = Date.now() - startedMs;
  if (begun?.state !== 'live') return { ok: false, stream, ...(await look()), text: (await page.innerText('main')).slice(0, 800) };
  await until(Number(seconds) * 1000, async () => { await look(); return false; });
  const last = await look();
  const text = (await page.innerText('main')).slice(0, 800);
  if (process.env.SHOT) await page.screenshot({ path: process.env.SHOT, fullPage: true });
  const shot = process.env.SHOT;
  delete process.env.SHOT; // the picture of the end would replace it
  await page.click('#stop');
  const stopped = await until(PATIENCE_MS, async () => (await look()).state === 'ready');
  return { ok: last.state === 'live' && Boolean(stopped), stream, seconds: Number(seconds), liveMs, ...last, stopped: Boolean(stopped), text, ...(shot ? { shot } : {}) };
});
