// Plays claps in Chromium, a white picture and a burst of sound at the same instant, and says how far the two are apart
// for a viewer: one line of JSON.
//
//   node tests/tools/webrtc-clap.mjs URL SECONDS            a WHEP endpoint, as http://127.0.0.1:8080/whep/demo
//   node tests/tools/webrtc-clap.mjs --hls PLAYLIST SECONDS hls.js
//   node tests/tools/webrtc-clap.mjs --reference SECONDS    two peer connections in the page: what the tool itself adds
//
// skewMs is positive when the sound is late. A clap counts when the picture before its flash was seen, too, and when
// WARMUP_S seconds (environment, 6 by default) have passed: the browser moves sound and picture together bit by bit, in
// 8 to 15 s. steadyMs is the median of the best five successive claps; `all` has each, in order. playoutSkewMs is what the
// browser believes by the sender's reports, with the same sign; null for hls.js. Seen and believed differ by 15 to 50 ms,
// which is the browser's own sound output; where they differ by more, the reports are wrong.
// Environment also: PATIENCE_S=20 (how long to wait for the first picture), CHROMIUM.
// Exit status: 0 when there were claps, 1 when there were none, 2 when it could not be tried.
import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { pause, until, within, withPage } from './webrtc-browser.mjs';

const { positionals, values } = parseArgs({
  allowPositionals: true, options: { hls: { type: 'string' }, reference: { type: 'boolean', default: false } },
});
const url = values.hls ?? (values.reference ? null : positionals.shift());
const [seconds] = positionals;
if (url === undefined || !(Number(seconds) > 0)) {
  console.error('usage: webrtc-clap.mjs URL SECONDS | --hls PLAYLIST SECONDS | --reference SECONDS');
  process.exit(2);
}
const patienceMs = Number(process.env.PATIENCE_S ?? 20) * 1000;
/** Claps that are a steady state: the browser moves sound and picture at most once a second. */
const STEADY = 5;
const warmupMs = Number(process.env.WARMUP_S ?? 6) * 1000;

/** In the page: `watch` puts the times of flashes and bursts, as performance.now() counts, into `claps`. */
const PAGE = `<!doctype html><meta charset="utf-8"><title>claps</title><script src="/hls.js"></script>
<video muted playsinline style="width:640px"></video><script type="module">
const video = document.querySelector('video');
const context = new AudioContext({ sampleRate: 48000 });
window.claps = { flashes: [], bursts: [], frames: 0 };

await context.audioWorklet.addModule('/onset.js');

async function hear(source) {
  const onset = new AudioWorkletNode(context, 'onset', { numberOfOutputs: 0 });
  onset.port.onmessage = ({ data }) => {
    const { contextTime, performanceTime } = context.getOutputTimestamp();
    claps.bursts.push(performanceTime + (data - contextTime) * 1000);
  };
  source.connect(onset);
  await context.resume();
}

function see() {
  const canvas = new OffscreenCanvas(16, 9), g = canvas.getContext('2d', { willReadFrequently: true });
  let before = null;
  const look = (_, { expectedDisplayTime, mediaTime, rtpTimestamp }) => {
    video.requestVideoFrameCallback(look);
    g.drawImage(video, 0, 0, 16, 9);
    const now = { at: rtpTimestamp === undefined ? mediaTime : rtpTimestamp / 90_000, white: g.getImageData(8, 4, 1, 1).data[1] > 128 };
    // Half a picture more than one at 30 a second: a missed one might have been the first white one.
    if (before && !before.white && now.white && now.at - before.at < 0.05) claps.flashes.push(expectedDisplayTime);
    before = now;
    claps.frames += 1;
  };
  video.requestVideoFrameCallback(look);
}

async function play(pc) {
  const stream = new MediaStream(pc.getReceivers().map((receiver) => receiver.track));
  video.srcObject = stream;
  see();
  await video.play();
  await hear(context.createMediaStreamSource(stream));
  window.pc = pc;
}

const gathered = (pc) => new Promise((resolve) => {
  const look = () => { if (pc.iceGatheringState === 'complete') resolve(); };
  pc.addEventListener('icegatheringstatechange', look);
  look();
});

window.watch = {
  /** False while nobody publishes. */
  async whep(url) {
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    for (const kind of ['video', 'audio']) pc.addTransceiver(kind, { direction: 'recvonly' });
    await pc.setLocalDescription();
    const response = await fetch(url, { method: 'POST', body: pc.localDescription.sdp, headers: { 'content-type': 'application/sdp' } });
    const sdp = await response.text();
    if (response.status !== 201) {
      pc.close();
      return false;
    }
    await pc.setRemoteDescription({ type: 'answer', sdp });
    await play(pc);
    return true;
  },

  async hls(url) {
    if ((await fetch(url)).status !== 200) return false;
    const player = new Hls({ lowLatencyMode: true });
    player.loadSource(url);
    player.attachMedia(video);
    // What goes into Web Audio is not muted by it alone: the element must not be, or it gives silence.
    video.muted = false;
    see();
    await video.play();
    await hear(context.createMediaElementSource(video));
    return true;
  },

  /** The claps of a canvas and an oscillator. */
  async reference() {
    const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 }), g = canvas.getContext('2d');
    const destination = context.createMediaStreamDestination(), gain = new GainNode(context, { gain: 0 });
    const tone = new OscillatorNode(context, { frequency: 1000 });
    tone.connect(gain).connect(destination);
    tone.start();
    const picture = canvas.captureStream(0), track = picture.getVideoTracks()[0];
    let frame = 0;
    setInterval(() => {
      frame += 1;
      g.fillStyle = frame % 30 < 3 ? '#fff' : '#000';
      g.fillRect(0, 0, 640, 360);
      track.requestFrame();
      if (frame % 30 !== 0) return;
      gain.gain.setValueAtTime(0.8, context.currentTime);
      gain.gain.setValueAtTime(0, context.currentTime + 0.04);
    }, 1000 / 30);
    const [from, to] = [new RTCPeerConnection(), new RTCPeerConnection()];
    const stream = new MediaStream([track, destination.stream.getAudioTracks()[0]]);
    for (const one of stream.getTracks()) from.addTrack(one, stream);
    await from.setLocalDescription();
    await gathered(from);
    await to.setRemoteDescription(from.localDescription);
    await to.setLocalDescription();
    await gathered(to);
    await from.setRemoteDescription(to.localDescription);
    await play(to);
    return true;
  },
};

/** By how much later than the picture the sound is played, as the browser believes. */
window.believed = async () => {
  if (!window.pc) return null;
  const tracks = [...(await pc.getStats()).values()].filter((one) => one.type === 'inbound-rtp');
  const [picture, sound] = ['video', 'audio'].map((kind) => tracks.find((one) => one.kind === kind)?.estimatedPlayoutTimestamp);
  return picture && sound ? picture - sound : null;
};
</script>`;

/** The first sample of each burst after a silence, in the context's time. */
const ONSET = `registerProcessor('onset', class extends AudioWorkletProcessor {
  quiet = 0;
  process([[samples]]) {
    samples?.forEach((sample, i) => {
      if (Math.abs(sample) < 0.1) {
        this.quiet += 1;
        return;
      }
      if (this.quiet > sampleRate / 4) this.port.postMessage(currentTime + i / sampleRate);
      this.quiet = 0;
    });
    return true;
  }
});`;

const hls = path.join(path.dirname(createRequire(import.meta.url).resolve('hls.js/package.json')), 'dist/hls.js');
const SERVED = {
  '/': ['text/html', () => PAGE], '/onset.js': ['text/javascript', () => ONSET], '/hls.js': ['text/javascript', () => fs.readFileSync(hls)],
};

const server = http.createServer((request, response) => {
  const [type, body] = SERVED[request.url] ?? [];
  if (!type) return response.writeHead(404).end();
  response.writeHead(200, { 'content-type': type }).end(body());
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

/** Each flash with the burst nearest to it; what is farther than half a second is another clap's. */
function skews({ flashes, bursts }) {
  const near = (flash) => bursts.map((burst) => burst - flash).reduce((best, one) => (Math.abs(one) < Math.abs(best) ? one : best), Infinity);
  return flashes.map(near).filter((skew) => Math.abs(skew) < 500);
}

function summary(values) {
  if (values.length === 0) return null;
  const sorted = values.toSorted((a, b) => a - b), round = (ms) => Math.round(ms * 10) / 10;
  return { p50: round(sorted[sorted.length >> 1]), max: round(sorted.toSorted((a, b) => Math.abs(b) - Math.abs(a))[0]) };
}

/** The median of those successive claps in which sound and picture were nearest to each other. */
function steady(values) {
  const medians = values.slice(STEADY - 1).map((_, i) => summary(values.slice(i, i + STEADY)).p50);
  return medians.length === 0 ? null : medians.reduce((best, one) => (Math.abs(one) < Math.abs(best) ? one : best));
}

withPage(async (page) => {
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction('window.watch');
  const way = values.hls ? 'hls' : values.reference ? 'reference' : 'whep';
  const told = { url, way, seconds: Number(seconds) };
  const begun = await until(patienceMs, () => within('playing', page.evaluate(([name, address]) => watch[name](address), [way, url])));
  const first = begun && await until(patienceMs, () => within('the page', page.evaluate('claps.frames > 0')));
  if (!first) return { ok: false, ...told, error: `no picture after ${patienceMs} ms` };
  await pause(warmupMs);
  const before = await within('the page', page.evaluate('({ flashes: claps.flashes.length, bursts: claps.bursts.length })'));
  const believed = [];
  for (const end = Date.now() + Number(seconds) * 1000; Date.now() < end; await pause(500)) {
    const one = await within('statistics', page.evaluate('believed()'));
    if (one !== null) believed.push(one);
  }
  const seen = await within('the page', page.evaluate('claps'));
  const counted = skews({ flashes: seen.flashes.slice(before.flashes), bursts: seen.bursts });
  return {
    ok: counted.length > 0, ...told, claps: counted.length, flashes: seen.flashes.length - before.flashes,
    bursts: seen.bursts.length - before.bursts, frames: seen.frames, skewMs: summary(counted), steadyMs: steady(counted),
    playoutSkewMs: summary(believed), all: counted.map(Math.round),
  };
});
