// Plays a WHEP address in Chromium, in stereo, and says what is heard on each side: one line of JSON.
//
//   node tests/tools/webrtc-listen.mjs URL SECONDS
//
// URL: a WHEP endpoint, as http://127.0.0.1:8080/whep/demo; while nobody publishes it is asked again. Of each side: the
// strongest frequency, its level in dB of full scale, and by how much it is louder than the other side's frequency is here
// (apartDb; null when both sides have the same). hz is null where there is silence.
// Environment: PATIENCE_S=20 (how long to wait for sound), CHROMIUM.
// Exit status: 0 when both sides were heard, 1 when not, 2 when it could not be tried.
import http from 'node:http';
import { parseArgs } from 'node:util';
import { pause, until, within, withPage } from './webrtc-browser.mjs';

const { positionals: [url, seconds] } = parseArgs({ allowPositionals: true });
if (!url || !(Number(seconds) > 0)) {
  console.error('usage: webrtc-listen.mjs URL SECONDS');
  process.exit(2);
}
const patienceMs = Number(process.env.PATIENCE_S ?? 20) * 1000;

/** Runs in the page: null while nobody publishes. */
async function play(url) {
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  for (const kind of ['video', 'audio']) pc.addTransceiver(kind, { direction: 'recvonly' });
  const offer = await pc.createOffer();
  // Chromium decodes to one channel unless its own offer says stereo (RFC 7587 7).
  await pc.setLocalDescription({ type: 'offer', sdp: offer.sdp.replaceAll('useinbandfec=1', 'useinbandfec=1;stereo=1') });
  const response = await fetch(url, { method: 'POST', body: pc.localDescription.sdp, headers: { 'content-type': 'application/sdp' } });
  const body = await response.text();
  if (response.status !== 201) {
    pc.close();
    return null;
  }
  await pc.setRemoteDescription({ type: 'answer', sdp: body });
  const stream = new MediaStream(pc.getReceivers().map((receiver) => receiver.track));
  // A remote track gives Web Audio nothing unless an element plays it, too.
  const video = document.body.appendChild(Object.assign(document.createElement('video'), { muted: true, srcObject: stream }));
  await video.play();
  const context = new AudioContext({ sampleRate: 48_000 });
  const splitter = new ChannelSplitterNode(context, { numberOfOutputs: 2 });
  context.createMediaStreamSource(stream).connect(splitter);
  const sides = [0, 1].map((side) => {
    const analyser = new AnalyserNode(context, { fftSize: 32_768, smoothingTimeConstant: 0, minDecibels: -120 });
    splitter.connect(analyser, side);
    return { analyser, power: new Float64Array(analyser.frequencyBinCount), looks: 0 };
  });
  window.heard = { pc, sides, hzPerBin: context.sampleRate / 32_768 };
  return { fmtp: body.match(/a=fmtp:\d+ .*stereo=.*/)?.[0] ?? null };
}

/** Runs in the page: adds what the last 0.7 s sound like to the sum. */
function look() {
  for (const side of heard.sides) {
    const levels = new Float32Array(side.analyser.frequencyBinCount);
    side.analyser.getFloatFrequencyData(levels);
    levels.forEach((db, bin) => { side.power[bin] += 10 ** (db / 10); });
    side.looks += 1;
  }
  return heard.sides.some(({ power }) => power.some((one) => one > 1e-9));
}

/** Runs in the page. */
async function figures() {
  const db = ({ power, looks }, bin) => Math.round(100 * Math.log10(Math.max(power[bin] / looks, 1e-15))) / 10;
  const loudest = heard.sides.map(({ power }) => power.indexOf(Math.max(...power)));
  const [left, right] = heard.sides.map((side, i) => {
    const own = db(side, loudest[i]), other = loudest[1 - i];
    if (own < -80) return { hz: null, db: null, apartDb: null };
    const same = Math.abs(loudest[i] - other) < 4;
    return { hz: Math.round(loudest[i] * heard.hzPerBin * 10) / 10, db: own, apartDb: same ? null : Math.round(10 * (own - db(side, other))) / 10 };
  });
  const audio = [...(await heard.pc.getStats()).values()].find((one) => one.type === 'inbound-rtp' && one.kind === 'audio');
  return { left, right, packets: audio?.packetsReceived ?? 0, lost: audio?.packetsLost ?? 0, concealedSamples: audio?.concealedSamples ?? 0 };
}

/** Runs in the page: what was heard before does not count. */
function forget() {
  for (const side of heard.sides) {
    side.power.fill(0);
    side.looks = 0;
  }
}

const server = http.createServer((_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><meta charset="utf-8"><title>listener</title>'));
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

withPage(async (page) => {
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  const begun = await until(patienceMs, () => within('playing', page.evaluate(play, url)));
  if (!begun) return { ok: false, url, error: `nobody publishes after ${patienceMs} ms` };
  const sound = await until(patienceMs, () => within('the page', page.evaluate(look)));
  // The beginning holds what was lost before the sound was steady.
  await pause(1000);
  await within('the page', page.evaluate(forget));
  for (const end = Date.now() + Number(seconds) * 1000; Date.now() < end;) {
    await pause(700);
    await within('the page', page.evaluate(look));
  }
  const last = await within('statistics', page.evaluate(figures));
  return { ok: Boolean(sound) && last.left.hz !== null && last.right.hz !== null, url, seconds: Number(seconds), ...begun, ...last };
});
