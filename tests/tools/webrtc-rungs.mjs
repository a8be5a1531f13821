// Watches a stream by WHEP in Chromium, without our page, and says ten times a second what it saw: which picture, what was
// decoded, what froze. One line {"watching": true} with the first picture; at the end one line of JSON.
//
//   node tests/tools/webrtc-rungs.mjs URL-OF-THE-SERVER STREAM SECONDS
//
// Environment: PATIENCE_S=20, CHROMIUM. Times are milliseconds since 1970. Exit status: 0 when frames were decoded, 1 when none
// were, 2 when it could not be tried.
import { pause, until, withPage } from './webrtc-browser.mjs';

const [server, stream, seconds] = process.argv.slice(2);
if (!server || !stream || !(Number(seconds) > 0)) {
  console.error('usage: webrtc-rungs.mjs URL-OF-THE-SERVER STREAM SECONDS');
  process.exit(2);
}
const patienceMs = Number(process.env.PATIENCE_S ?? 20) * 1000;

/** In the page. */
async function watch(endpoint) {
  const peer = new RTCPeerConnection();
  peer.addTransceiver('video', { direction: 'recvonly' });
  peer.addTransceiver('audio', { direction: 'recvonly' });
  const video = document.createElement('video');
  Object.assign(video, { autoplay: true, muted: true, playsInline: true });
  document.body.replaceChildren(video);
  const media = new MediaStream();
  peer.ontrack = ({ track }) => { media.addTrack(track); video.srcObject = media; };
  await peer.setLocalDescription();
  const answer = await fetch(endpoint, { method: 'POST', headers: { 'content-type': 'application/sdp' }, body: peer.localDescription.sdp });
  if (answer.status !== 201) throw new Error(`the offer was answered with ${answer.status}`);
  await peer.setRemoteDescription({ type: 'answer', sdp: await answer.text() });
  const seen = { samples: [], gaps: [] };
  let shownMs = 0;
  const shown = (_, { expectedDisplayTime }) => {
    if (shownMs > 0 && expectedDisplayTime - shownMs > 150) seen.gaps.push({ at: Date.now(), ms: Math.round(expectedDisplayTime - shownMs) });
    shownMs = expectedDisplayTime;
    video.requestVideoFrameCallback(shown);
  };
  video.requestVideoFrameCallback(shown);
  setInterval(async () => {
    const reports = [...(await peer.getStats()).values()], one = reports.find((it) => it.type === 'inbound-rtp' && it.kind === 'video');
    if (!one) return;
    const { framesDecoded = 0, frameWidth = 0, frameHeight = 0, framesPerSecond = 0, freezeCount = 0, totalFreezesDuration = 0, packetsReceived = 0,
      packetsLost = 0, bytesReceived = 0, pliCount = 0, nackCount = 0, keyFramesDecoded = 0 } = one;
    seen.samples.push({ at: Date.now(), framesDecoded, frameWidth, frameHeight, framesPerSecond, freezeCount, totalFreezesDuration, packetsReceived,
      packetsLost, bytesReceived, pliCount, nackCount, keyFramesDecoded });
  }, 100);
  window.seen = seen;
}

withPage(async (page) => {
  await page.goto(`${server}/metrics`, { waitUntil: 'commit' }).catch(() => {});
  await page.evaluate(watch, `${server}/whep/${stream}`);
  const first = await until(patienceMs, () => page.evaluate(() => window.seen.samples.find(({ framesDecoded }) => framesDecoded > 0)));
  console.log(JSON.stringify({ watching: Boolean(first) }));
  if (first) await pause(Number(seconds) * 1000);
  return { ok: Boolean(first), ...await page.evaluate(() => window.seen) };
});
