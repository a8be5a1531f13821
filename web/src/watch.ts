// The watch page: asks for the status, feeds the state machine (core/page.ts) and makes player and screen match it.
//
//   status.json ─┐                      ┌─ wanted ─> player (shell/webrtc.ts, or shell/player.ts for HLS)
//   player ──────┼─> step(model, input) ┼─ view ───> screen (shell/screen.ts)
//   time, tab ───┘                      └─ lease ──> shell/lease.ts
import { obsWords } from './core/advice';
import { ServerClock } from './core/clock';
import { type Choice, initial, type Input, mayRetry, needsLease, parseChoice, pollMs, step, transport, view, wanted, type Wanted } from './core/page';
import { parseStatus, streamOfPath } from './core/status';
import { delayWords, pathWords } from './core/words';
import { AdviceList } from './shell/advice';
import { ask } from './shell/fetch';
import { TabLease } from './shell/lease';
import { createPlayer, type Player, type Reading, support, type WebRtcReading } from './shell/player';
import { Screen } from './shell/screen';
import { WebRtcPlayer } from './shell/webrtc';
import { canWatch } from './shell/whep';

/** The steering interval (core/rate.ts), and how soon a change is seen. */
const BEAT_MS = 100;
/** A picture that has not moved for this long stands still: a few frames of a slow stream. */
const STILL_MS = 400;
/** How often the numbers are drawn. */
const DRAW_MS = 500;
/** After a longer pause the buffer is stale: begin anew. */
const LONG_PAUSE_MS = 5000;
/** Error names kept for tests and bug reports. */
const ERRORS_MAX = 50;
/** Where the viewer's choice is remembered. */
const CHOICE = 'codecast.transport';

const now = () => performance.now();
const stream = streamOfPath(location.pathname);
const base = `/live/${encodeURIComponent(stream)}`;
const screen = new Screen(stream, { togglePlay, toggleMute, setVolume, choose, chooseLayer });
const { video } = screen;
const supported = support(video);
/** Within the details, and last there: for a streamer who looks at the own stream. */
const advice = new AdviceList(screen.advice, obsWords, '');
const clock = new ServerClock();
const lease = new TabLease('codecast.low-latency', (holds) => put({ kind: 'mode', mode: supported === 'native' ? 'native' : holds ? 'low-latency' : 'segments' }));

let model = initial(stream, { hls: supported !== null, webRtc: canWatch() }, firstChoice());
let player: Player | WebRtcPlayer | null = null;
let playing: Wanted | null = null;
let reading: Reading | null = null;
let stalls = 0;
let firstFrameMs: number | null = null;
let players = 0;
const hlsErrors: string[] = [];

/** The address decides before what was remembered. */
function firstChoice(): Choice {
  let remembered: string | null = null;
  try {
    remembered = localStorage.getItem(CHOICE);
  } catch {
    // Forbidden: nothing is remembered.
  }
  return parseChoice(new URLSearchParams(location.search).get('transport')) ?? parseChoice(remembered) ?? 'auto';
}

function choose(choice: Choice): void {
  try {
    localStorage.setItem(CHOICE, choice);
  } catch {
    // Forbidden: it holds for this page.
  }
  put({ kind: 'choice', choice });
}

function chooseLayer(encodingId: string | null): void {
  player?.choose(encodingId);
}

function put(input: Input): void {
  model = step(model, input, now());
  if (needsLease(model)) lease.take();
  else {
    lease.give();
    model = { ...model, mode: null };
  }
  match(wanted(model));
  draw();
}

/** Makes the player the wanted one. */
function match(want: Wanted | null): void {
  if (want?.key === playing?.key) return;
  player?.destroy();
  player = null;
  playing = want;
  reading = null;
  if (want !== null) start(want);
}

function start({ key, mode, insists }: Wanted): void {
  const startedMs = now();
  players += 1;
  firstFrameMs = null;
  const begun = (atMs = now()) => {
    if (playing?.key !== key || firstFrameMs !== null) return;
    firstFrameMs = Math.round(atMs - startedMs);
    put({ kind: 'player', key, event: 'playing' });
  };
  player = mode === 'webrtc'
    ? new WebRtcPlayer(video, `/whep/${encodeURIComponent(stream)}`, insists, {
      begun,
      attached: () => { if (!model.paused) void play(); },
      gaveUp: (why) => put({ kind: 'gave-up', why }),
      ended: () => schedulePoll(0),
    })
    : createPlayer(video, `${base}/index.m3u8`, mode, {
      event: (event) => put({ kind: 'player', key, event }),
      error: (name) => { if (hlsErrors.push(name) > ERRORS_MAX) hlsErrors.shift(); },
      standing: () => schedulePoll(0),
      stall: () => { stalls += 1; },
    });
  if (player instanceof WebRtcPlayer) return player.hear(model.status, model.misses === 0);
  if (model.status?.video !== false && 'requestVideoFrameCallback' in video) video.requestVideoFrameCallback(() => begun());
  else video.addEventListener('timeupdate', () => video.currentTime > 0 && begun(), { once: false, signal: untilNext() });
  if (!model.paused) void play();
}

let listening = new AbortController();
/** A signal that ends when the next player starts. */
function untilNext(): AbortSignal {
  listening.abort();
  listening = new AbortController();
  return listening.signal;
}

/** With sound where the browser allows it; else muted, with the Unmute button; else the Play button. */
async function play(): Promise<void> {
  for (const muted of video.muted ? [true] : [false, true]) {
    try {
      video.muted = muted;
      await video.play();
      return put({ kind: 'blocked', blocked: false });
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== 'NotAllowedError') return; // another player took over
    }
  }
  haltedAtMs = now();
  put({ kind: 'blocked', blocked: true });
}

let haltedAtMs = 0;
const halted = () => model.paused || model.blocked;
const haltedLong = () => halted() && now() - haltedAtMs > LONG_PAUSE_MS;

function togglePlay(): void {
  if (video.paused) resume();
  else {
    pause();
    video.pause();
  }
}

function pause(): void {
  haltedAtMs = now();
  put({ kind: 'paused', paused: true });
}

/** Always at the live picture: what was missed is not shown later. */
function resume(): void {
  if (haltedLong()) return put({ kind: 'renew' });
  put({ kind: 'paused', paused: false });
  player?.toLive();
  void play();
}

/** The page is looked at again. */
function seen(): void {
  if (document.hidden) return;
  schedulePoll(0);
  if (!video.paused || model.paused || player === null) return;
  player.toLive();
  void play();
}

function toggleMute(): void {
  video.muted = !video.muted;
  if (!video.muted && video.volume === 0) setVolume(1);
  draw();
}

function setVolume(volume: number): void {
  video.volume = volume;
  video.muted = volume === 0;
  screen.showVolume(volume);
  draw();
}

async function poll(): Promise<void> {
  const answer = await ask(`${base}/status.json`);
  const status = answer === null ? null : parseStatus(answer.json);
  if (answer === null || status === null) put({ kind: 'no-answer' });
  else {
    if (status.nowMs !== null) clock.push(answer.sentMs, answer.receivedMs, status.nowMs);
    else clock.pushDate(answer.sentMs, answer.receivedMs, answer.date);
    put({ kind: 'status', status });
  }
  if (player instanceof WebRtcPlayer) player.hear(model.status, model.misses === 0);
  schedulePoll(pollMs(model, document.hidden));
}

let pollTimer = 0;
function schedulePoll(delayMs: number): void {
  clearTimeout(pollTimer);
  pollTimer = window.setTimeout(poll, delayMs);
}

let lastTime = -1;
let movedMs = 0;
function beat(): void {
  if (document.hidden && video.paused && !video.ended) return; // a phone pauses what nobody sees: neither a stall nor a wish
  const at = now();
  if (video.currentTime !== lastTime) {
    lastTime = video.currentTime;
    movedMs = at;
  }
  if (player !== null) reading = player.beat(at, model.status?.state === 'live');
  if (haltedLong()) player?.rest();
  const moving = firstFrameMs !== null && !video.paused && (reading?.flowing ?? at - movedMs < STILL_MS);
  const trouble = reading?.webRtc?.trouble ?? '';
  if (trouble !== model.trouble) put({ kind: 'trouble', why: trouble });
  put(moving === model.player?.moving ? { kind: 'tick' } : { kind: 'moving', moving });
}

/**
 * HLS: how far the picture is behind the streamer, by the server's clock. WebRTC: what this browser can know, from the
 * server to the screen: half a round trip and the wait in the jitter buffer.
 */
function latencyMs(): number | null {
  const figures = reading?.webRtc?.figures;
  if (figures !== undefined) {
    return figures?.jitterBufferMs == null ? null : Math.round(figures.jitterBufferMs + (figures.roundTripMs ?? 0) / 2);
  }
  const dateMs = reading?.playingDateMs ?? null;
  return dateMs === null || clock.offsetMs === null ? null : Math.round(Date.now() + clock.offsetMs - dateMs);
}

function draw(): void {
  const shown = view(model, now());
  screen.show(shown, video);
  if (shown.kind !== 'live') screen.showDelay('');
  screen.showChoice(model.choice, model.can.webRtc, mayRetry(model));
  screen.showLayers(reading?.layers ?? [], reading?.layer ?? null);
}

function drawNumbers(): void {
  const latency = latencyMs();
  const live = view(model, now()).kind === 'live';
  const words = reading?.webRtc === undefined ? delayWords : pathWords;
  screen.showDelay(live && latency !== null ? words(latency) : '');
  if (screen.showsDetails) void advice.beat(live ? stream : null, now());
  screen.showFacts([
    ...(reading?.webRtc === undefined ? hlsFacts(latency) : webRtcFacts(reading.webRtc)),
    ['First picture after', firstFrameMs === null ? '–' : `${firstFrameMs} ms`],
    ['Picture', video.videoWidth > 0 ? `${video.videoWidth} × ${video.videoHeight}` : 'none'],
    ['Transport', transportWords()],
  ]);
}

type Facts = [string, string][];

function hlsFacts(latency: number | null): Facts {
  const seconds = (value: number | null | undefined) => (value === null || value === undefined ? '–' : `${value.toFixed(2)} s`);
  const quality = video.getVideoPlaybackQuality?.();
  return [
    ['Behind the streamer', seconds(latency === null ? null : latency / 1000)],
    ['Behind the live edge', seconds(reading?.edgeLatency)],
    ['Target', seconds(reading?.target)],
    ['Buffer', seconds(reading?.buffer)],
    ['Speed', `${video.playbackRate.toFixed(2)}×`],
    ['Stalls', String(stalls)],
    ['Dropped pictures', quality === undefined ? '–' : `${quality.droppedVideoFrames} of ${quality.totalVideoFrames}`],
  ];
}

function webRtcFacts({ figures, sessions, restarts }: WebRtcReading): Facts {
  const ms = (value: number | null | undefined) => (value === null || value === undefined ? '–' : `${Math.round(value)} ms`);
  return [
    ['Wait in the jitter buffer', ms(figures?.jitterBufferMs)],
    ['Round trip to the server', ms(figures?.roundTripMs)],
    ['Not in the estimate', 'the way from the streamer to the server, and decoding'],
    ['Freezes', String(figures?.freezes ?? '–')],
    ['Dropped pictures', figures === null ? '–' : `${figures.framesDropped} of ${figures.framesDecoded}`],
    ['Lost packets', String(figures?.packetsLost ?? '–')],
    ['Codec', figures?.codec || '–'],
    ['Sessions, restarts', `${sessions}, ${restarts}`],
  ];
}

function transportWords(): string {
  switch (playing?.mode) {
    case 'webrtc': return 'WebRTC';
    case 'low-latency': return 'Low-Latency HLS';
    case 'segments': return 'HLS, whole segments';
    case 'native': return 'HLS by the browser';
    case undefined: return '–';
  }
}

/** A read-only look inside, for tests and bug reports. */
const snapshot = () => Object.freeze({
  state: view(model, now()).kind,
  transport: transport(model),
  choice: model.choice,
  mode: playing?.mode ?? null,
  latencyMs: latencyMs(),
  targetMs: reading?.target == null ? null : Math.round(reading.target * 1000),
  edgeLatencyMs: reading?.edgeLatency == null ? null : Math.round(reading.edgeLatency * 1000),
  bufferMs: reading === null ? null : Math.round(reading.buffer * 1000),
  rate: video.playbackRate,
  stalls, firstFrameMs, players,
  shown: reading?.shown ?? null,
  webrtc: reading?.webRtc === undefined ? null : Object.freeze({ ...reading.webRtc }),
  framesDecoded: reading?.webRtc?.figures?.framesDecoded ?? video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0,
  hlsErrors: Object.freeze([...hlsErrors]),
});
Object.defineProperty(window, 'codecast', { get: snapshot });

video.preservesPitch = true;
window.addEventListener('online', () => schedulePoll(0));
document.addEventListener('visibilitychange', seen);
video.addEventListener('pause', () => { if (!document.hidden && !video.ended && player !== null && !model.paused) pause(); });
video.addEventListener('play', () => { if (model.paused) resume(); });
for (const action of ['play', 'pause'] as const) navigator.mediaSession?.setActionHandler(action, togglePlay);
window.addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });
draw();
void poll();
setInterval(beat, BEAT_MS);
setInterval(drawNumbers, DRAW_MS);
