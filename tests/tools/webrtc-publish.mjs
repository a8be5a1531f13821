// Publishes by WHIP from Chromium with a small script of its own, not with the studio page, and says what went out:
// one line of JSON. The page has an origin of its own, so the server's CORS answers are tried, too.
//
//   node tests/tools/webrtc-publish.mjs BASE STREAM KEY SECONDS [--source canvas|time|typing|screen|camera] [--simulcast]
//        [--size 640x360] [--fps 30] [--bitrate 2000] [--codec H264|VP8|VP9|AV1] [--only] [--no-audio]
//        [--no-delete] [--largest-until SECONDS]
//
// --only leaves that codec, and what repairs it, alone in the offer; else it is the first of all.
// BASE: the server's address, as http://127.0.0.1:8080. With `time` each picture carries the time at which it was drawn
// (latency/timecode.mjs), and keeps its size and rate. With --largest-until the largest layer of a simulcast stops then, as
// it does where the network is slow. `typing` sends a picture when somebody types, as a shared screen: none for up to a second. Ends with a DELETE, or without one to look like a crash.
// A line {"live": true} comes when the connection stands, the figures at the end. Environment: SHOT, CHROMIUM.
// Exit status: 0 when frames were sent, 1 when none were, 2 when it could not be tried.
import fs from 'node:fs';
import http from 'node:http';
import { parseArgs } from 'node:util';
import { pause, within, withPage } from './webrtc-browser.mjs';

const { positionals: [base, stream, key, seconds], values } = parseArgs({
  allowPositionals: true,
  options: {
    source: { type: 'string', default: 'canvas' }, simulcast: { type: 'boolean', default: false }, size: { type: 'string', default: '640x360' },
    fps: { type: 'string', default: '30' }, bitrate: { type: 'string', default: '2000' }, codec: { type: 'string', default: 'H264' },
    only: { type: 'boolean', default: false },
    'no-audio': { type: 'boolean', default: false }, 'no-delete': { type: 'boolean', default: false },
    'largest-until': { type: 'string' },
  },
});
const [width, height] = values.size.split('x').map(Number);
if (!base || !stream || !key || !(Number(seconds) > 0) || !(width > 0) || !(height > 0) || !['canvas', 'time', 'typing', 'screen', 'camera'].includes(values.source)) {
  console.error('usage: webrtc-publish.mjs BASE STREAM KEY SECONDS [--source canvas|time|typing|screen|camera] [--simulcast] [--size 640x360] …');
  process.exit(2);
}

/** Runs in the page. */
async function publish({ endpoint, key, source, simulcast, width, height, fps, bitsPerSecond, codec, only, audio }) {
  const video = source === 'screen' ? (await navigator.mediaDevices.getDisplayMedia({ video: { frameRate: fps } })).getVideoTracks()[0]
    : source === 'camera' ? (await navigator.mediaDevices.getUserMedia({ video: { width, height, frameRate: fps } })).getVideoTracks()[0]
      : canvasTrack(source);
  video.contentHint = source === 'screen' ? 'detail' : 'motion';
  const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
  const shares = [['l', 4, 0.08], ['m', 2, 0.22], ['h', 1, 0.7]];
  const sendEncodings = simulcast
    ? shares.map(([rid, scaleResolutionDownBy, share]) => ({ rid, scaleResolutionDownBy, maxBitrate: share * bitsPerSecond }))
    : [{ maxBitrate: bitsPerSecond }];
  const transceiver = pc.addTransceiver(video, { direction: 'sendonly', sendEncodings });
  if (source === 'time' || source === 'typing') await transceiver.sender.setParameters({ ...transceiver.sender.getParameters(), degradationPreference: 'maintain-resolution' });
  const codecs = RTCRtpSender.getCapabilities('video').codecs;
  const named = (name) => codecs.filter((one) => one.mimeType.toLowerCase() === `video/${name}`.toLowerCase());
  const wanted = named(codec), others = only ? named('rtx') : codecs.filter((one) => !wanted.includes(one));
  transceiver.setCodecPreferences([...wanted, ...others]);
  if (audio) pc.addTransceiver(tone(), { direction: 'sendonly' });
  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  const startedMs = performance.now();
  const response = await fetch(endpoint, { method: 'POST', body: offer.sdp, headers: { 'content-type': 'application/sdp', authorization: `Bearer ${key}` } });
  const body = await response.text();
  if (response.status !== 201) return { refused: response.status, body };
  const location = response.headers.get('location');
  if (location === null) return { refused: response.status, body: 'no Location, or it is not exposed to other origins' };
  window.session = new URL(location, endpoint).href;
  window.pc = pc;
  window.stopLargest = () => {
    const parameters = transceiver.sender.getParameters();
    parameters.encodings.find((one) => one.rid === 'h').active = false;
    return transceiver.sender.setParameters(parameters);
  };
  // What is measured is the way, not how soon the browser believes that it is wide: it begins with 300 kbit/s.
  const kbps = bitsPerSecond / 1000, wide = `;x-google-min-bitrate=${kbps};x-google-start-bitrate=${kbps}`;
  const sdp = source === 'time' || simulcast ? body.replace(/^a=fmtp:.*packetization-mode.*$/gm, (line) => line + wide) : body;
  await pc.setRemoteDescription({ type: 'answer', sdp });
  const connected = await new Promise((resolve) => {
    const look = () => { if (pc.connectionState === 'connected' || pc.connectionState === 'failed') resolve(pc.connectionState === 'connected'); };
    pc.addEventListener('connectionstatechange', look);
    setTimeout(() => resolve(false), 10_000);
    look();
  });
  return { connected, connectMs: Math.round(performance.now() - startedMs), link: response.headers.get('link'), etag: response.headers.get('etag') };

  function canvasTrack(source) {
    const timed = source === 'time' || source === 'typing';
    const canvas = document.body.appendChild(Object.assign(document.createElement('canvas'), { width, height }));
    const g = canvas.getContext('2d', { alpha: false }), track = canvas.captureStream(timed ? 0 : fps).getVideoTracks()[0];
    const cell = [width * timecode.WIDTH_SHARE / timecode.COLS, height * timecode.HEIGHT_SHARE / timecode.ROWS];
    const paint = (on, i) => {
      g.fillStyle = on ? '#fff' : '#000';
      g.fillRect((i % timecode.COLS) * cell[0], Math.floor(i / timecode.COLS) * cell[1], cell[0] + 1, cell[1] + 1);
    };
    let frame = 0;
    const paintAll = () => {
      frame += 1;
      g.fillStyle = '#1b2230';
      g.fillRect(0, 0, width, height);
      g.font = `${Math.round(height / 18)}px monospace`;
      for (let line = 0; line < 14; line++) {
        g.fillStyle = `hsl(${(line * 40 + frame) % 360} 70% 70%)`;
        g.fillText(`${frame + line}: let answer = ${(frame * 7919 + line * 104729) % 100_000};`, (frame * 2 + line * 30) % width - width / 3, (line + 1) * height / 15);
      }
      if (!timed) return;
      timecode.cells(performance.timeOrigin + performance.now()).forEach(paint);
      track.requestFrame();
    };
    const type = () => { paintAll(); setTimeout(type, [40, 90, 250, 60, 1000, 120, 700][frame % 7]); };
    if (source === 'typing') type(); else setInterval(paintAll, 1000 / fps);
    return track;
  }

  /** Another tone on each side: mono is heard at once. */
  function tone() {
    const context = new AudioContext({ sampleRate: 48_000 }), merger = context.createChannelMerger(2), out = context.createMediaStreamDestination();
    for (const [side, hertz] of [440, 660].entries()) {
      const oscillator = new OscillatorNode(context, { frequency: hertz });
      oscillator.connect(merger, 0, side);
      oscillator.start();
    }
    merger.connect(new GainNode(context, { gain: 0.2 })).connect(out);
    return out.stream.getAudioTracks()[0];
  }
}

/** Runs in the page. */
async function figures() {
  const report = await pc.getStats(), all = [...report.values()], nowMs = performance.now();
  const video = all.filter((one) => one.type === 'outbound-rtp' && one.kind === 'video');
  const bytes = video.reduce((sum, one) => sum + one.bytesSent, 0), audio = all.find((one) => one.type === 'outbound-rtp' && one.kind === 'audio');
  return {
    nowMs, bytes, connection: pc.connectionState, codec: report.get(video[0]?.codecId)?.mimeType ?? null, audioBytes: audio?.bytesSent ?? 0,
    pliCount: video.reduce((sum, one) => sum + (one.pliCount ?? 0), 0), nackCount: video.reduce((sum, one) => sum + (one.nackCount ?? 0), 0),
    retransmitted: video.reduce((sum, one) => sum + (one.retransmittedPacketsSent ?? 0), 0),
    layers: Object.fromEntries(video.map((one) => [one.rid ?? '', {
      framesSent: one.framesSent, keyFrames: one.keyFramesEncoded, width: one.frameWidth ?? null, height: one.frameHeight ?? null,
      fps: one.framesPerSecond ?? null, bytes: one.bytesSent, active: one.active, limit: one.qualityLimitationReason,
    }])),
    roundTripMs: all.filter((one) => one.type === 'remote-inbound-rtp' && one.roundTripTime !== undefined).map((one) => one.roundTripTime * 1000)[0] ?? null,
    lost: all.filter((one) => one.type === 'remote-inbound-rtp' && one.kind === 'video').reduce((sum, one) => sum + Math.max(0, one.packetsLost ?? 0), 0),
    availableOutgoingBitrate: all.find((one) => one.type === 'candidate-pair' && one.nominated)?.availableOutgoingBitrate ?? null,
  };
}

const PAGE = `<!doctype html><meta charset="utf-8"><title>publisher</title>
<script type="module">import * as timecode from '/timecode.mjs'; window.timecode = timecode;</script>`;
const SERVED = { '/': ['text/html', PAGE], '/timecode.mjs': ['text/javascript', fs.readFileSync(new URL('latency/timecode.mjs', import.meta.url))] };
const server = http.createServer((request, response) => {
  const [type, body] = SERVED[request.url] ?? [];
  if (!type) return response.writeHead(404).end();
  response.writeHead(200, { 'content-type': type }).end(body);
});
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));

withPage(async (page) => {
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.waitForFunction('window.timecode');
  const begun = await within('publishing', page.evaluate(publish, {
    endpoint: `${base.replace(/\/$/, '')}/whip/${encodeURIComponent(stream)}`, key, source: values.source, simulcast: values.simulcast, width, height,
    fps: Number(values.fps), bitsPerSecond: Number(values.bitrate) * 1000, codec: values.codec, only: values.only, audio: !values['no-audio'],
  }));
  const told = { stream, source: values.source, seconds: Number(seconds) };
  if (!begun.connected) return { ok: false, ...told, ...begun };
  console.log(JSON.stringify({ live: true, connectMs: begun.connectMs }));
  const before = await page.evaluate(figures);
  const until = Math.min(Number(values['largest-until'] ?? seconds), Number(seconds));
  await pause(until * 1000);
  if (values['largest-until']) await page.evaluate(() => stopLargest());
  await pause((Number(seconds) - until) * 1000);
  const { nowMs, bytes, ...last } = await within('statistics', page.evaluate(figures));
  const bitsPerSecond = Math.round((bytes - before.bytes) * 8000 / (nowMs - before.nowMs));
  const deleted = values['no-delete'] ? null : await page.evaluate(async (key) => (await fetch(session, { method: 'DELETE', headers: { authorization: `Bearer ${key}` } })).status, key);
  const framesSent = Object.values(last.layers).reduce((sum, layer) => sum + (layer.framesSent ?? 0), 0);
  return { ok: framesSent > 0, ...told, ...begun, bitsPerSecond, framesSent, ...last, deleted };
});
