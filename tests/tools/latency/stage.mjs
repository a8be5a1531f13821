// A browser for the tests: Debian's Chromium, one context for each player (a browser gives a host six connections in
// HTTP/1.1, and one low-latency player uses four), and pages that hold a bare player.
// Environment: CHROMIUM=/usr/bin/chromium, HLS_CONFIG, SHAKA_CONFIG and VHS_CONFIG (JSON, laid over the low-latency defaults).
import fs from 'node:fs';
import http from 'node:http';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
const modules = createRequire(import.meta.url);

const FLAGS = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required',
  '--disable-background-timer-throttling', '--disable-renderer-backgrounding', '--disable-backgrounding-occluded-windows',
  '--disable-features=WebRtcHideLocalIpsWithMdns'];

const bare = (script, start) => `<!doctype html><meta charset="utf-8"><title>bare player</title>
<video muted autoplay playsinline style="width:480px"></video>${script && `<script src="/${script}"></script>`}<script>
const video = document.querySelector('video');
window.start = async (url, config) => { probe.mark(); ${start} };
window.ready = true;</script>`;

const PAGES = {
  '/hls.js.html': bare('hls.js', `
    const player = new Hls({ lowLatencyMode: true, ...config });
    player.on(Hls.Events.ERROR, (_, e) => probe.error(e.details + (e.fatal ? ' (fatal)' : '')));
    window.chooseSound = (name) => { player.audioTrack = player.audioTracks.findIndex((track) => track.name === name); };
    player.on(Hls.Events.AUDIO_TRACK_SWITCHED, (_, track) => { window.sound = track.name; });
    window.shown = () => player.levels[player.currentLevel]?.uri.split('/').at(-1) ?? '';
    window.playerFacts = () => ({ version: Hls.version, audioTracks: player.audioTracks.length, sound: window.sound, playerLatencyS: player.latency, targetLatencyS: player.targetLatency });
    player.loadSource(url); player.attachMedia(video);`),
  '/shaka.html': bare('shaka.js', `
    shaka.polyfill.installAll();
    const player = new shaka.Player();
    player.addEventListener('error', (e) => probe.error('shaka ' + e.detail.code));
    window.shown = () => player.getVariantTracks().find(({ active }) => active)?.originalVideoId ?? '';
    window.playerFacts = () => ({ version: shaka.Player.version, audioTracks: player.getAudioTracks().length, playerLatencyS: player.getStats().liveLatency });
    await player.attach(video);
    player.configure({ streaming: { lowLatencyMode: true } });
    player.configure(config);
    await player.load(url);`),
  '/vhs.html': bare('video.js', `
    video.className = 'video-js';
    const vhs = { overrideNative: true, llhls: true, experimentalLLHLS: true, ...config };
    const player = videojs(video, { html5: { vhs, nativeAudioTracks: false, nativeVideoTracks: false } });
    player.on('error', () => probe.error('vhs ' + player.error()?.code + ' (fatal): ' + player.error()?.message));
    window.shown = () => player.tech(true)?.vhs?.playlists.media()?.uri ?? '';
    window.playerFacts = () => ({ version: videojs.VERSION });
    player.src({ src: url, type: 'application/vnd.apple.mpegurl' });
    await player.play();`),
  '/native.html': bare('', `
    window.playerFacts = () => ({ version: navigator.userAgentData.brands.map((b) => b.version).at(-1) });
    video.crossOrigin = 'anonymous';
    video.src = url;`),
  // Counted from the request: candidates are there by then.
  '/whep.html': bare('', `
    const pc = new RTCPeerConnection({ bundlePolicy: 'max-bundle' });
    // As players do that are meant to be prompt: sound is buffered no longer than the network asks for, and pictures wait for it.
    for (const kind of ['video', 'audio']) pc.addTransceiver(kind, { direction: 'recvonly' }).receiver.jitterBufferTarget = 0;
    video.srcObject = new MediaStream(pc.getReceivers().map(({ track }) => track));
    const gathered = new Promise((resolve) => { pc.onicecandidate = ({ candidate }) => { if (!candidate) resolve(); }; });
    await pc.setLocalDescription();
    await gathered;
    probe.mark();
    const response = await fetch(url, { method: 'POST', body: pc.localDescription.sdp, headers: { 'content-type': 'application/sdp' } });
    const sdp = await response.text();
    if (response.status !== 201) throw new Error(response.status + ': ' + sdp);
    await pc.setRemoteDescription({ type: 'answer', sdp });`),
};

const SCRIPTS = {
  '/hls.js': 'hls.js/dist/hls.js', '/shaka.js': 'shaka-player/dist/shaka-player.compiled.js', '/video.js': 'video.js/dist/video.js',
};

/** The players a page can be asked for. `vhs` is video.js, `native` Chromium's own HLS, `whep` a bare one with a WHEP
 *  endpoint, `page` CodeCast's own watch page at its own address. */
export const PLAYERS = ['hls.js', 'shaka', 'vhs', 'native', 'whep', 'page'];

/** timecode.mjs and probe.js as one script that leaves nothing behind but `window.probe`. */
function probeScript() {
  const text = (name) => fs.readFileSync(path.join(here, name), 'utf8');
  return `(() => {${text('timecode.mjs').replaceAll(/^export /gm, '')}\n${text('probe.js')}})();`;
}

function serve(request, response) {
  const name = new URL(request.url, 'http://localhost').pathname;
  if (PAGES[name]) return response.writeHead(200, { 'content-type': 'text/html' }).end(PAGES[name]);
  if (!SCRIPTS[name]) return response.writeHead(404).end();
  const [module_, ...rest] = SCRIPTS[name].split('/');
  const file = path.join(path.dirname(modules.resolve(`${module_}/package.json`)), ...rest);
  response.writeHead(200, { 'content-type': 'text/javascript' }).end(fs.readFileSync(file));
}

/** One browser. `open(player, url)` answers a page that has begun to play, in a context of its own or `among` the
 *  pages of one; `close()` ends everything. */
export async function stage() {
  const { chromium } = modules('playwright-core');
  const server = http.createServer(serve);
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const base = `http://127.0.0.1:${server.address().port}`;
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', headless: true, args: FLAGS });
  const script = probeScript();
  const configs = { 'hls.js': JSON.parse(process.env.HLS_CONFIG ?? '{}'), shaka: JSON.parse(process.env.SHAKA_CONFIG ?? '{}'),
    vhs: JSON.parse(process.env.VHS_CONFIG ?? '{}') };

  async function newContext() {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 } });
    await context.addInitScript({ content: script });
    return context;
  }

  async function open(player, url, among = null) {
    const context = among ?? await newContext();
    const page = await context.newPage();
    page.requests = { total: 0, blockingReloads: 0, refused: 0 };
    page.on('request', (r) => { page.requests.total++; if (r.url().includes('_HLS_msn=')) page.requests.blockingReloads++; });
    page.on('response', (r) => { if (r.status() >= 400) page.requests.refused++; });
    page.on('pageerror', (e) => page.evaluate((text) => probe.error(text), `page: ${e.message}`).catch(() => {}));
    if (player === 'page') {
      await page.goto(url, { waitUntil: 'commit' });
      return page;
    }
    await page.goto(`${base}/${player}.html`);
    await page.waitForFunction('window.ready');
    // Not awaited to its end: a playlist that never comes must not hold up the clock of the measurement.
    page.evaluate(([u, c]) => start(u, c).catch((e) => probe.error(`start: ${e.code ?? e.message}`)), [url, configs[player]]).catch(() => {});
    return page;
  }

  async function close() {
    await browser.close();
    server.close();
  }
  return { open, close };
}
