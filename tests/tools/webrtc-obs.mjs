// A WHIP publisher on libdatachannel, the library of OBS Studio 30 and later, made to look like OBS on the wire: mids 0
// (Opus, payload type 111) and 1 (H.264, 96, 42e01f in the offer whatever the encoder makes), offer posted at once,
// fragments of 1200 bytes, a sender report each second, answers to NACK, no transport-cc, no RTX, DELETE at the end. It
// offers the codec that its encoder makes, and no other.
//
//   node tests/tools/webrtc-obs.mjs URL KEY SECONDS [--codec h264|h265|av1] [--size 640x360] [--fps 30] [--kbps 800]
//        [--profile high] [--left 440] [--right 880] [--no-delete]
//
// The sound is a tone of its own on each side. Ends with one line of JSON. Needs ffmpeg.
// Exit status: 0 when pictures were sent, 1 when none were, 2 when it could not be tried.
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import nd from 'node-datachannel';

const { positionals: [url, key, seconds], values } = parseArgs({
  allowPositionals: true,
  options: {
    codec: { type: 'string', default: 'h264' },
    size: { type: 'string', default: '640x360' }, fps: { type: 'string', default: '30' }, kbps: { type: 'string', default: '800' },
    profile: { type: 'string', default: 'high' }, left: { type: 'string', default: '440' }, right: { type: 'string', default: '880' },
    'no-delete': { type: 'boolean', default: false },
  },
});
if (!url || !key || !(Number(seconds) > 0) || !['h264', 'h265', 'av1'].includes(values.codec)) {
  console.error('usage: webrtc-obs.mjs URL KEY SECONDS [--codec h264|h265|av1] [--size 640x360] …');
  process.exit(2);
}
const fps = Number(values.fps);
const every = `${fps * 2}`, rate = `${values.kbps}k`;
/** Of each codec: how it is offered, cut for RTP, encoded, and cut into pictures. */
const coding = {
  h264: {
    offer: (media, payloadType) => media.addH264Codec(payloadType),
    packetizer: (config) => new nd.H264RtpPacketizer('StartSequence', config, 1200),
    encoder: ['-c:v', 'libx264', '-preset', 'ultrafast', '-profile:v', values.profile, '-bf', '0', '-g', every,
      '-maxrate', rate, '-bufsize', rate, '-x264-params', 'aud=1:repeat-headers=1:scenecut=0', '-f', 'h264'],
    pictures: (output, send) => delimited(output, Buffer.from([0, 0, 0, 1, 9]), send),
  },
  h265: {
    offer: (media, payloadType) => media.addH265Codec(payloadType),
    packetizer: (config) => new nd.H265RtpPacketizer('StartSequence', config, 1200),
    encoder: ['-c:v', 'libx265', '-preset', 'ultrafast', '-tune', 'zerolatency',
      '-x265-params', `log-level=error:aud=1:repeat-headers=1:bframes=0:scenecut=0:open-gop=0:keyint=${every}:min-keyint=${every}`, '-f', 'hevc'],
    pictures: (output, send) => delimited(output, Buffer.from([0, 0, 0, 1, 0x46, 1]), send),
  },
  av1: {
    offer: (media, payloadType) => media.addAV1Codec(payloadType),
    packetizer: (config) => new nd.AV1RtpPacketizer('TemporalUnit', config, 1200),
    encoder: ['-c:v', 'libaom-av1', '-usage', 'realtime', '-cpu-used', '8', '-lag-in-frames', '0', '-g', every, '-f', 'obu'],
    pictures: temporalUnits,
  },
}[values.codec];
const name = () => Array.from({ length: 16 }, () => randomInt(36).toString(36)).join('');
const headers = {
  'content-type': 'application/sdp', authorization: `Bearer ${key}`,
  'user-agent': 'Mozilla/5.0 (OBS-Studio/30.2.3; Linux x86_64; en-US)',
};

/** The library sometimes fails on its own answer's candidates at a start: another connection is tried, as OBS's user would. */
async function connect() {
  const pc = new nd.PeerConnection('obs', { iceServers: [], disableAutoNegotiation: true });
  const connected = new Promise((resolve, reject) => {
    pc.onStateChange((state) => {
      if (state === 'connected') resolve();
      if (state === 'failed') reject(new Error('ICE or DTLS failed'));
    });
  });
  const cname = name(), stream = name(), ssrc = randomInt(2 ** 31);
  const track = (Media, mid, kind, payloadType, clock, packetizer) => {
    const media = new Media(mid, 'SendOnly');
    if (kind === 'video') coding.offer(media, payloadType); else media.addOpusCodec(payloadType);
    const own = ssrc + (kind === 'video' ? 1 : 0);
    media.addSSRC(own, cname, stream, `${stream}-${kind}`);
    const sender = pc.addTrack(media), config = new nd.RtpPacketizationConfig(own, cname, payloadType, clock);
    const chain = packetizer(config);
    chain.addToChain(new nd.RtcpSrReporter(config));
    chain.addToChain(new nd.RtcpNackResponder());
    sender.setMediaHandler(chain);
    return { sender, config, sent: 0 };
  };
  const audio = track(nd.Audio, '0', 'audio', 111, 48000, (config) => new nd.RtpPacketizer(config));
  const video = track(nd.Video, '1', 'video', 96, 90000, coding.packetizer);
  pc.setLocalDescription('offer');
  const answer = await fetch(url, { method: 'POST', headers, body: pc.localDescription().sdp });
  const text = await answer.text();
  // OBS takes nothing but 201.
  if (answer.status !== 201) throw Object.assign(new Error(`answered ${answer.status}: ${text}`), { status: answer.status });
  const session = new URL(answer.headers.get('location'), url).href;
  try {
    pc.setRemoteDescription(text, 'answer');
    await connected;
  } catch (error) {
    await fetch(session, { method: 'DELETE', headers });
    pc.close();
    throw error;
  }
  return { pc, audio, video, session };
}

async function connectPatiently() {
  for (let attempt = 1; ; attempt++) {
    try {
      return await connect();
    } catch (error) {
      if (error.status || attempt === 4) throw error;
    }
  }
}

function sendVideo(output, video) {
  coding.pictures(output, (picture) => {
    video.config.timestamp = (video.sent++ * 90000) / fps;
    if (video.sender.isOpen()) video.sender.sendMessageBinary(Buffer.from(picture));
  });
}

/** One access unit at a time, cut at the access unit delimiters. */
function delimited(output, delimiter, send) {
  let held = Buffer.alloc(0);
  output.on('data', (data) => {
    held = Buffer.concat([held, data]);
    for (let next; (next = held.indexOf(delimiter, delimiter.length)) > 0; held = held.subarray(next)) send(held.subarray(0, next));
  });
}

/** One temporal unit at a time, from a temporal delimiter to before the next. */
function temporalUnits(output, send) {
  let held = Buffer.alloc(0), at = 0;
  output.on('data', (data) => {
    held = Buffer.concat([held, data]);
    for (;;) {
      let size = 0, behind = at + 1;
      for (let shift = 0; behind < held.length; shift += 7) {
        size |= (held[behind] & 0x7f) << shift;
        if ((held[behind++] & 0x80) === 0) break;
      }
      if (behind >= held.length || behind + size > held.length) return;
      if (at > 0 && held[at] >> 3 === 2) {
        send(held.subarray(0, at));
        held = held.subarray(at);
        [at, behind] = [0, behind - at];
      }
      at = behind + size;
    }
  });
}

/** Opus packets out of Ogg pages; the two header packets are left out. */
function sendAudio(output, audio) {
  let held = Buffer.alloc(0), parts = [], seen = 0;
  output.on('data', (data) => {
    held = Buffer.concat([held, data]);
    while (held.length >= 27) {
      const count = held[26];
      const lacing = held.subarray(27, 27 + count), size = lacing.reduce((sum, length) => sum + length, 0);
      if (held.length < 27 + count + size) return;
      let at = 27 + count;
      for (const length of lacing) {
        parts.push(held.subarray(at, at + length));
        at += length;
        if (length === 255) continue;
        const packet = Buffer.concat(parts);
        parts = [];
        if (seen++ < 2) continue;
        audio.config.timestamp = audio.sent++ * 960;
        if (audio.sender.isOpen()) audio.sender.sendMessageBinary(packet);
      }
      held = held.subarray(at);
    }
  });
}

let peer;
try {
  peer = await connectPatiently();
} catch (error) {
  console.log(JSON.stringify({ error: error.message, status: error.status ?? null }));
  process.exit(1);
}
console.log(JSON.stringify({ live: true }));
const input = ['-re', '-f', 'lavfi', '-i', `testsrc2=s=${values.size}:r=${fps}`, '-re', '-f', 'lavfi', '-i',
  `aevalsrc=0.4*sin(2*PI*${values.left}*t)|0.4*sin(2*PI*${values.right}*t):s=48000`];
const ffmpeg = spawn('ffmpeg', ['-hide_banner', '-loglevel', 'error', '-nostdin', ...input,
  '-map', '0:v', '-t', seconds, '-pix_fmt', 'yuv420p', '-b:v', rate, ...coding.encoder, 'pipe:1',
  '-map', '1:a', '-t', seconds, '-c:a', 'libopus', '-ac', '2', '-b:a', '160k', '-page_duration', '20000', '-f', 'ogg', 'pipe:3'],
{ stdio: ['ignore', 'pipe', 'inherit', 'pipe'] });
sendVideo(ffmpeg.stdout, peer.video);
sendAudio(ffmpeg.stdio[3], peer.audio);
await new Promise((resolve) => { ffmpeg.on('close', resolve); });
let deleted = null;
if (!values['no-delete']) deleted = (await fetch(peer.session, { method: 'DELETE', headers })).status;
console.log(JSON.stringify({ videoFrames: peer.video.sent, audioPackets: peer.audio.sent, deleted }));
peer.pc.close();
nd.cleanup();
process.exit(peer.video.sent > 0 ? 0 : 1);
