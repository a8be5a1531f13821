// Opens a watch page in Chromium, watches for some seconds after the first frame, and says what a viewer saw: one line
// of JSON.
//
//   node tests/tools/webrtc-view.mjs URL SECONDS [--transport auto|webrtc|hls] [--layer ENCODING_ID] [--tcp] [--settle SECONDS]
//
// With --tcp the browser is not told of UDP, as if its network blocked it. With --settle the seconds begin that long after the
// first frame, with a line {"watching": true}, and stalls and freezes before it are left out: browsers that start beside each
// other keep each other from their pictures.
// Environment: PATIENCE_S=20 (how long to wait for the first frame), SHOT=picture.png, CHROMIUM.
// Exit status: 0 when frames were decoded, 1 when none were, 2 when it could not be tried.
import { parseArgs } from 'node:util';
import { pause, until, within, withPage } from './webrtc-browser.mjs';

const { positionals: [url, seconds], values: { transport, layer, tcp, settle } } = parseArgs({
  allowPositionals: true, options: { transport: { type: 'string', default: 'webrtc' }, layer: { type: 'string' }, tcp: { type: 'boolean', default: false },
    settle: { type: 'string', default: '0' } },
});
if (!url || !(Number(seconds) > 0)) {
  console.error('usage: webrtc-view.mjs URL SECONDS [--transport auto|webrtc|hls] [--layer ENCODING_ID] [--tcp] [--settle SECONDS]');
  process.exit(2);
}
const patienceMs = Number(process.env.PATIENCE_S ?? 20) * 1000;
const address = new URL(url);
address.searchParams.set('transport', transport);

const snapshot = (page) => within('the page', page.evaluate(() => {
  const video = document.querySelector('video'), seen = window.codecast;
  return seen && {
    transport: seen.transport, mode: seen.mode, state: seen.state, firstFrameMs: seen.firstFrameMs, framesDecoded: seen.framesDecoded,
    width: video.videoWidth, height: video.videoHeight, latencyMs: seen.latencyMs, muted: video.muted,
    freezeCount: seen.webrtc?.figures?.freezes ?? null, jitterBufferMs: seen.webrtc?.figures?.jitterBufferMs ?? null,
    roundTripMs: seen.webrtc?.figures?.roundTripMs ?? null, packetsLost: seen.webrtc?.figures?.packetsLost ?? null,
    audioBytes: seen.webrtc?.figures?.audioBytes ?? null, audioLevel: seen.webrtc?.figures?.audioLevel ?? null,
    codec: seen.webrtc?.figures?.codec ?? null, session: seen.webrtc?.state ?? null, sessions: seen.webrtc?.sessions ?? null,
    restarts: seen.webrtc?.restarts ?? null, trouble: seen.webrtc?.trouble ?? null,
    layers: seen.webrtc?.layers?.map(({ encodingId }) => encodingId) ?? null, layer: seen.webrtc?.layer ?? null,
    players: seen.players, stalls: seen.stalls, hlsErrors: seen.hlsErrors,
  };
}));

/** Takes the UDP candidates out of each answer. */
async function withoutUdp(route) {
  const answer = await route.fetch();
  const lines = (await answer.text()).split('\r\n').filter((line) => !/^a=candidate:\S+ 1 udp /i.test(line));
  await route.fulfill({ response: answer, body: lines.join('\r\n') });
}

withPage(async (page) => {
  if (tcp) await page.route(/\/whep\/[^/]+$/, withoutUdp);
  await page.goto(address.href, { waitUntil: 'commit' });
  const first = await until(patienceMs, async () => {
    const seen = await snapshot(page).catch(() => null);
    return seen?.firstFrameMs !== null && seen?.framesDecoded > 0 && seen;
  });
  if (first && layer !== undefined) {
    await until(patienceMs, async () => (await snapshot(page)).layers?.includes(layer));
    await page.selectOption('#layer', layer);
  }
  let before = null;
  if (first && Number(settle) > 0) {
    await pause(Number(settle) * 1000);
    before = await snapshot(page);
    console.log(JSON.stringify({ watching: true }));
  }
  if (first) await pause(Number(seconds) * 1000);
  const last = await snapshot(page);
  for (const count of ['stalls', 'freezeCount']) if (before?.[count]) last[count] -= before[count];
  const text = (await within('text', page.innerText('body'))).slice(0, 1000);
  return { ok: Boolean(first), url, seconds: Number(seconds), ...last, framesDecodedAtFirst: first?.framesDecoded ?? null, text };
});
