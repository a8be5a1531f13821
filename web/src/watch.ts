// The watch page: asks for the status, feeds the state machine (core/page.ts) and makes player and screen match it.
//
//   status.json ─┐                      ┌─ wanted ─> player (shell/player.ts)
//   player ──────┼─> step(model, input) ┼─ view ───> screen (shell/screen.ts)
//   time, tab ───┘                      └─ lease ──> shell/lease.ts
import { ServerClock } from './core/clock';
import { initial, type Input, needsLease, pollMs, step, view, wanted, type Wanted } from './core/page';
import { parseStatus, streamOfPath } from './core/status';
import { delayWords } from './core/words';
import { ask } from './shell/fetch';
import { TabLease } from './shell/lease';
import { createPlayer, type Player, type Reading, support } from './shell/player';
import { Screen } from './shell/screen';

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

const now = () => performance.now();
const stream = streamOfPath(location.pathname);
const base = `/live/${encodeURIComponent(stream)}`;
const screen = new Screen(stream, { togglePlay, toggleMute, setVolume });
const { video } = screen;
const supported = support(video);
const clock = new ServerClock();
const lease = new TabLease((holds) => put({ kind: 'mode', mode: supported === 'native' ? 'native' : holds ? 'low-latency' : 'segments' }));

let model = initial(stream, supported !== null);
let player: Player | null = null;
let playing: Wanted | null = null;
let reading: Reading | null = null;
let stalls = 0;
let firstFrameMs: number | null = null;
let players = 0;
const hlsErrors: string[] = [];

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

function start({ key, mode }: Wanted): void {
  const startedMs = now();
  players += 1;
  firstFrameMs = null;
  const begun = () => {
    if (playing?.key !== key || firstFrameMs !== null) return;
    firstFrameMs = Math.round(now() - startedMs);
    put({ kind: 'player', key, event: 'playing' });
  };
  player = createPlayer(video, `${base}/index.m3u8`, mode, {
    event: (event) => put({ kind: 'player', key, event }),
    error: (name) => { if (hlsErrors.push(name) > ERRORS_MAX) hlsErrors.shift(); },
    standing: () => schedulePoll(0),
    stall: () => { stalls += 1; },
  });
  if (model.status?.video !== false && 'requestVideoFrameCallback' in video) video.requestVideoFrameCallback(begun);
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
  if (document.hidden && video.paused) return; // a phone pauses what nobody sees: neither a stall nor a wish
  const at = now();
  if (video.currentTime !== lastTime) {
    lastTime = video.currentTime;
    movedMs = at;
  }
  if (player !== null) reading = player.beat(at, model.status?.state === 'live');
  if (haltedLong()) player?.rest();
  const moving = firstFrameMs !== null && !video.paused && at - movedMs < STILL_MS;
  put(moving === model.player?.moving ? { kind: 'tick' } : { kind: 'moving', moving });
}

/** How far the picture is behind the streamer, by the server's clock. */
function latencyMs(): number | null {
  const dateMs = reading?.playingDateMs ?? null;
  return dateMs === null || clock.offsetMs === null ? null : Math.round(Date.now() + clock.offsetMs - dateMs);
}

function draw(): void {
  const shown = view(model, now());
  screen.show(shown, video);
  if (shown.kind !== 'live') screen.showDelay('');
}

function drawNumbers(): void {
  const latency = latencyMs();
  const live = view(model, now()).kind === 'live';
  screen.showDelay(live && latency !== null ? delayWords(latency) : '');
  const seconds = (value: number | null | undefined) => (value === null || value === undefined ? '–' : `${value.toFixed(2)} s`);
  const quality = video.getVideoPlaybackQuality?.();
  screen.showFacts([
    ['Behind the streamer', seconds(latency === null ? null : latency / 1000)],
    ['Behind the live edge', seconds(reading?.edgeLatency)],
    ['Target', seconds(reading?.target)],
    ['Buffer', seconds(reading?.buffer)],
    ['Speed', `${video.playbackRate.toFixed(2)}×`],
    ['Stalls', String(stalls)],
    ['Dropped pictures', quality === undefined ? '–' : `${quality.droppedVideoFrames} of ${quality.totalVideoFrames}`],
    ['First picture after', firstFrameMs === null ? '–' : `${firstFrameMs} ms`],
    ['Picture', video.videoWidth > 0 ? `${video.videoWidth} × ${video.videoHeight}` : 'none'],
    ['Transport', transportWords()],
  ]);
}

function transportWords(): string {
  switch (playing?.mode) {
    case 'low-latency': return 'Low-Latency HLS';
    case 'segments': return 'HLS, whole segments';
    case 'native': return 'HLS by the browser';
    case undefined: return '–';
  }
}

/** A read-only look inside, for tests and bug reports. */
const snapshot = () => Object.freeze({
  state: view(model, now()).kind,
  mode: playing?.mode ?? null,
  latencyMs: latencyMs(),
  targetMs: reading?.target == null ? null : Math.round(reading.target * 1000),
  edgeLatencyMs: reading?.edgeLatency == null ? null : Math.round(reading.edgeLatency * 1000),
  bufferMs: reading === null ? null : Math.round(reading.buffer * 1000),
  rate: video.playbackRate,
  stalls, firstFrameMs, players,
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
