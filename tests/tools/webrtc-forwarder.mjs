// The floor to compare a server's latency with: WHIP in, WHEP out on libdatachannel, each RTP packet passed on as it
// comes. H.264 and Opus, one publisher and its viewers a name; for measurements alone, it checks no key and bounds nothing.
//
//   node tests/tools/webrtc-forwarder.mjs
//
// Says {"http": "http://127.0.0.1:PORT"} when it serves `/whip/NAME` and `/whep/NAME`, and runs until it is ended. The library
// sometimes fails on the candidates of a peer: whoever measures tries again.
import http from 'node:http';
import nd from 'node-datachannel';

/** What the publisher's browser is told that it may send. */
const BITRATE = 8_000_000;
const CORS = {
  'access-control-allow-origin': '*', 'access-control-allow-headers': 'authorization, content-type',
  'access-control-allow-methods': '*', 'access-control-expose-headers': 'location',
};
const rooms = new Map(), sessions = new Map();

const room = (name) => rooms.get(name) ?? rooms.set(name, { tracks: {}, viewers: new Set() }).get(name);
const payloadType = (sdp, codec) => Number(new RegExp(`a=rtpmap:(\\d+) ${codec}/`, 'i').exec(sdp)[1]);
const isRtcp = (packet) => packet[1] >= 192 && packet[1] <= 223;

function publish(pc, { tracks, viewers }) {
  pc.onTrack((track) => {
    const kind = track.type();
    tracks[kind] = track;
    track.setMediaHandler(new nd.RtcpReceivingSession());
    if (kind === 'video') setInterval(() => { if (track.isOpen()) track.requestBitrate(BITRATE); }, 1000).unref();
    track.onMessage((packet) => viewers.forEach((send) => send(kind, packet)));
  });
}

function view(pc, { tracks, viewers }, offer) {
  const senders = {};
  for (const [, kind, mid] of offer.matchAll(/m=(\w+)[\s\S]*?a=mid:(\S+)/g)) {
    const video = kind === 'video', type = payloadType(offer, video ? 'H264' : 'opus'), ssrc = video ? 4242 : 4243;
    const media = new (video ? nd.Video : nd.Audio)(mid, 'SendOnly');
    if (video) media.addH264Codec(type); else media.addOpusCodec(type);
    media.addSSRC(ssrc, 'forwarder', 'forwarder', kind);
    const track = pc.addTrack(media);
    track.onOpen(() => tracks.video?.requestKeyframe());
    // 206: the viewer asks for a keyframe (RFC 4585 6.1).
    track.onMessage((packet) => { if (video && packet[1] === 206) tracks.video?.requestKeyframe(); });
    senders[kind] = { track, type, ssrc };
  }
  const send = (kind, packet) => {
    const sender = senders[kind];
    if (!sender?.track.isOpen() || isRtcp(packet)) return;
    const own = Buffer.from(packet);
    own[1] = (own[1] & 0x80) | sender.type;
    own.writeUInt32BE(sender.ssrc, 8);
    sender.track.sendMessageBinary(own);
  };
  viewers.add(send);
  pc.onStateChange((state) => { if (['closed', 'failed', 'disconnected'].includes(state)) viewers.delete(send); });
}

const body = async (request) => { let text = ''; for await (const piece of request) text += piece; return text; };
const gathered = (pc) => new Promise((resolve) => {
  if (pc.gatheringState() === 'complete') resolve();
  pc.onGatheringStateChange((state) => { if (state === 'complete') resolve(); });
});

/** The library takes over what the browser offers, transport-cc too, of which it sends no feedback: the browser would slow down. */
const promised = (sdp) => sdp.split('\r\n').filter((line) => !/^a=(rtcp-fb|extmap):.*(transport-cc|transport-wide-cc)/.test(line)).join('\r\n');

async function answer(request, response) {
  const [, kind, name] = request.url.split('/');
  if (request.method === 'OPTIONS') return response.writeHead(204, CORS).end();
  if (request.method === 'DELETE') {
    sessions.get(name)?.close();
    sessions.delete(name);
    return response.writeHead(200, CORS).end();
  }
  if (request.method !== 'POST') return response.writeHead(405, CORS).end();
  const offer = await body(request), id = String(sessions.size + 1);
  const pc = new nd.PeerConnection(`${kind} ${name}`, { iceServers: [], bindAddress: '127.0.0.1' });
  sessions.set(id, pc);
  if (kind === 'whip') publish(pc, room(name)); else view(pc, room(name), offer);
  pc.setRemoteDescription(offer, 'offer');
  await gathered(pc);
  return response.writeHead(201, { ...CORS, 'content-type': 'application/sdp', location: `/session/${id}` }).end(promised(pc.localDescription().sdp));
}

// The library throws out of its own callbacks, too; then this connection fails, and whoever measures tries again.
process.on('uncaughtException', (error) => console.error(error.message));
const server = http.createServer((request, response) => {
  answer(request, response).catch((error) => response.writeHead(500, CORS).end(error.message));
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ http: `http://127.0.0.1:${server.address().port}` })));
