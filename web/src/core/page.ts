// The watch page as a state machine: what happened goes in through `step`, what should be there comes out of `wanted`
// (which player) and `view` (which words).
//
// Pure: no clock, no network, no DOM. The shell reports status answers, player events and the passing of time, then
// makes the screen and the player match. `wanted` is a description, not a command: asking twice changes nothing.
import type { Status } from './status';

/** low-latency: parts. segments: whole segments, for a second tab. native: the browser's own HLS. */
export type HlsMode = 'low-latency' | 'segments' | 'native';
export type Mode = HlsMode | 'webrtc';

/** What the viewer asked for. auto: WebRTC, and HLS where that does not work. */
export type Choice = 'auto' | 'webrtc' | 'hls';
export type Transport = 'webrtc' | 'hls';

export const parseChoice = (text: string | null): Choice | null => (text === 'auto' || text === 'webrtc' || text === 'hls' ? text : null);

export type PlayerEvent =
  /** The first picture is on screen (or the first sound, where there is no picture). */
  | 'playing'
  /** The end of the presentation was played. */
  | 'ended'
  /** Given up: the network, or media that could not be repaired. Build another. */
  | 'failed';

export type Input =
  | { kind: 'status'; status: Status }
  | { kind: 'no-answer' }
  | { kind: 'mode'; mode: HlsMode | null }
  | { kind: 'choice'; choice: Choice }
  /** WebRTC does not work here; a plain sentence. */
  | { kind: 'gave-up'; why: string }
  /** It does not work at the moment, but is tried again; '' when it works. */
  | { kind: 'trouble'; why: string }
  | { kind: 'player'; key: string; event: PlayerEvent }
  /** Sampled: does the picture move? */
  | { kind: 'moving'; moving: boolean }
  | { kind: 'paused'; paused: boolean }
  /** The browser refuses to play, even without sound, before a gesture. */
  | { kind: 'blocked'; blocked: boolean }
  /** Resumed after a long pause, or asked for by the viewer: begin at the live edge with a new player. */
  | { kind: 'renew' }
  | { kind: 'tick' };

export interface Wanted {
  key: string;
  mode: Mode;
  /** The viewer wants WebRTC and nothing else. */
  insists: boolean;
}

/** What the browser can do, and what the viewer asked for. */
export interface Abilities {
  hls: boolean;
  webRtc: boolean;
}

interface Player {
  key: string;
  presentation: string;
  phase: 'starting' | 'playing' | 'ended' | 'failed';
  moving: boolean;
  /** When `moving` or `phase` last changed. */
  sinceMs: number;
}

export interface Model {
  stream: string;
  can: Abilities;
  choice: Choice;
  /** Why WebRTC was given up, or null. It is not tried again before the viewer asks for it. */
  gaveUp: string | null;
  trouble: string;
  status: Status | null;
  /** When the server's state last became what it is. */
  stateSinceMs: number;
  /** Status requests in a row without an answer. */
  misses: number;
  /** How HLS is played; null until it is known whether another tab holds the low-latency lease. */
  mode: HlsMode | null;
  /** Counts the players built for one presentation: part of the player's key, so that one more means a new player. */
  attempt: number;
  /** Players in a row that failed; spaces out the next ones. */
  failures: number;
  player: Player | null;
  /** The presentation that was played to its end: not started again. */
  finished: string | null;
  paused: boolean;
  blocked: boolean;
}

/** A picture that stands this long while the server says "live" and answers: the player is stuck. */
const STUCK_MS = 5000;
/** A player that has played this long without a break owes nothing to earlier failures. */
const PROVEN_MS = 10_000;
/** First wait before another player; doubled with each failure in a row. */
const RETRY_MS = 500;
const RETRY_MAX_MS = 8000;
/** After the server says "offline", a player may play out what it has; silence this long means that it has. */
const PLAY_OUT_MS = 2500;
/** A stand-still shorter than this is not worth words. */
const BUFFERING_MS = 600;
/** A quick hiccup of status requests is not worth words while the picture moves. */
const MISSES_MAX = 3;

export function initial(stream: string, can: Abilities, choice: Choice): Model {
  return {
    stream, can, choice, gaveUp: null, trouble: '', status: null, stateSinceMs: 0, misses: 0, mode: null, attempt: 0,
    failures: 0, player: null, finished: null, paused: false, blocked: false,
  };
}

export function step(model: Model, input: Input, nowMs: number): Model {
  return follow(rebuild(apply(model, input, nowMs), nowMs), nowMs);
}

function apply(model: Model, input: Input, nowMs: number): Model {
  switch (input.kind) {
    case 'status': return heard(model, input.status, nowMs);
    case 'no-answer': return { ...model, misses: model.misses + 1 };
    case 'mode': return { ...model, mode: input.mode };
    case 'choice': return { ...model, choice: input.choice, gaveUp: null, paused: false, blocked: false };
    case 'gave-up': return { ...model, gaveUp: input.why };
    case 'trouble': return { ...model, trouble: input.why };
    case 'player': return model.player?.key === input.key ? told(model, model.player, input.event, nowMs) : model;
    case 'moving': return model.player === null || model.player.moving === input.moving ? model
      : { ...model, player: { ...model.player, moving: input.moving, sinceMs: nowMs } };
    case 'paused': return restarted({ ...model, paused: input.paused }, nowMs);
    case 'blocked': return restarted({ ...model, blocked: input.blocked }, nowMs);
    case 'renew': return { ...model, attempt: model.attempt + 1, paused: false, blocked: false };
    case 'tick': return model;
  }
}

function heard(model: Model, status: Status, nowMs: number): Model {
  const changed = status.state !== model.status?.state;
  const back = model.misses > 0 && status.state === 'live' && standing(model) && transport(model) === 'hls';
  return {
    ...model, status, misses: 0,
    stateSinceMs: changed ? nowMs : model.stateSinceMs,
    // The network is back and the picture stands: the player's own retries may be seconds away, a new one is not.
    attempt: model.attempt + (back ? 1 : 0),
  };
}

/** A player is not stuck for the time it was not asked to play. */
const restarted = (model: Model, nowMs: number): Model =>
  model.player === null ? model : { ...model, player: { ...model.player, sinceMs: nowMs } };

function standing(model: Model): boolean {
  const { player } = model;
  return player !== null && player.phase !== 'ended' && !player.moving && !model.paused && !model.blocked;
}

function told(model: Model, player: Player, event: PlayerEvent, nowMs: number): Model {
  const next = { ...player, phase: event, sinceMs: nowMs };
  if (event === 'ended') return { ...model, player: next, finished: player.presentation };
  if (event === 'failed') return { ...model, player: { ...next, moving: false }, failures: model.failures + 1 };
  return { ...model, player: next };
}

/**
 * One more attempt where the present player has failed or is stuck, and the server is there to serve another. A player
 * by WebRTC heals itself or gives up (core/session.ts).
 */
function rebuild(model: Model, nowMs: number): Model {
  const { player, status } = model;
  if (transport(model) === 'webrtc') return model;
  if (player === null || status?.state !== 'live' || model.misses > 0) return model;
  const forMs = nowMs - player.sinceMs;
  if (player.moving && forMs > PROVEN_MS && model.failures > 0) return { ...model, failures: 0 };
  if (key(model) !== player.key) return model;
  if (player.phase === 'failed') return forMs >= retryMs(model.failures) ? { ...model, attempt: model.attempt + 1 } : model;
  const stuckMs = Math.min(forMs, nowMs - model.stateSinceMs);
  if (!standing(model) || stuckMs < STUCK_MS + retryMs(model.failures)) return model;
  return { ...model, attempt: model.attempt + 1, failures: model.failures + 1 };
}

const retryMs = (failures: number): number => Math.min(RETRY_MAX_MS, failures === 0 ? 0 : RETRY_MS * 2 ** (failures - 1));

/** Makes the record of the player match what is wanted now. */
function follow(model: Model, nowMs: number): Model {
  const want = wantedAt(model, nowMs);
  if (want === null) return model.player === null ? model : { ...model, player: null, finished: finishedBy(model, model.player) };
  if (want.key === model.player?.key) return model;
  const presentation = model.status?.presentation ?? '';
  return { ...model, player: { key: want.key, presentation, phase: 'starting', moving: false, sinceMs: nowMs } };
}

/** A player dropped because the server says "offline" has shown all there was, whether or not it noticed the end. */
const finishedBy = (model: Model, player: Player): string | null =>
  model.status?.state === 'offline' ? player.presentation : model.finished;

/** WebRTC negotiates sound and picture from the start: an added track needs no other player. */
function key(model: Model): string {
  const { status, attempt } = model;
  if (transport(model) === 'webrtc') return [status?.presentation, insists(model) ? 'webrtc only' : 'webrtc', attempt].join('/');
  return [status?.presentation, status?.tracks, model.mode, attempt].join('/');
}

/** How this page plays, or would play. */
export function transport({ can, choice, gaveUp }: Model): Transport {
  if (!can.webRtc || !can.hls) return can.webRtc ? 'webrtc' : 'hls';
  return choice === 'hls' || gaveUp !== null ? 'hls' : 'webrtc';
}

const insists = ({ can, choice }: Model): boolean => choice === 'webrtc' || !can.hls;
const supported = ({ can }: Model): boolean => can.hls || can.webRtc;
const modeOf = (model: Model): Mode | null => (transport(model) === 'webrtc' ? 'webrtc' : model.mode);

/** The player that should exist, or null. */
export function wanted(model: Model): Wanted | null {
  const mode = modeOf(model);
  return model.player === null || mode === null ? null : { key: model.player.key, mode, insists: insists(model) };
}

function wantedAt(model: Model, nowMs: number): Wanted | null {
  const { status, player } = model, mode = modeOf(model);
  if (!supported(model) || status === null || mode === null) return null;
  const want = { mode, insists: insists(model) };
  if (status.state === 'live') return status.presentation === model.finished ? null : { key: key(model), ...want };
  if (player === null || player.phase === 'ended' || player.presentation !== status.presentation && status.state === 'away') return null;
  // Away: the playlist goes on when the publisher is back. Offline: the rest of it is played out.
  const playedOut = status.state === 'offline' && !player.moving && nowMs - Math.max(player.sinceMs, model.stateSinceMs) > PLAY_OUT_MS;
  return playedOut ? null : { key: player.key, ...want };
}

/** Whether the low-latency lease is needed: nothing is to be held while there is nothing to play. */
export const needsLease = (model: Model): boolean =>
  model.can.hls && transport(model) === 'hls' && (model.player !== null || (model.status?.state === 'live' && model.status.presentation !== model.finished));

export type ViewKind =
  | 'connecting' | 'offline' | 'starting' | 'live' | 'buffering' | 'paused' | 'away' | 'ended' | 'lost' | 'blocked' | 'unsupported';

export interface View {
  kind: ViewKind;
  /** One plain sentence or two. */
  message: string;
  /** The message covers the picture. */
  covers: boolean;
  /** A wheel turns beside the message. */
  busy: boolean;
  /** A second line that does not change the state, or ''. */
  notice: string;
}

export function view(model: Model, nowMs: number): View {
  const kind = viewKind(model, nowMs);
  const still = kind === 'live' || kind === 'paused';
  return {
    kind, message: words(kind, model.stream), covers: !still,
    busy: kind === 'connecting' || kind === 'starting' || kind === 'buffering' || kind === 'lost',
    notice: notice(model),
  };
}

function viewKind(model: Model, nowMs: number): ViewKind {
  const { player, status } = model;
  if (!supported(model)) return 'unsupported';
  if (player?.moving && player.phase === 'playing' && model.misses < MISSES_MAX) return 'live';
  if (model.misses > (status === null ? 1 : 0)) return 'lost';
  if (status === null) return 'connecting';
  if (status.state === 'away') return model.paused && player !== null ? 'paused' : 'away';
  if (status.state === 'offline') return offlineKind(model);
  if (status.presentation === model.finished) return 'ended';
  if (model.blocked) return 'blocked';
  if (player === null || player.phase === 'starting') return 'starting';
  if (player.phase === 'failed') return 'lost';
  if (model.paused) return 'paused';
  return nowMs - player.sinceMs < BUFFERING_MS ? 'live' : 'buffering';
}

function offlineKind(model: Model): ViewKind {
  if (model.player !== null && model.player.phase !== 'ended') return model.player.phase === 'playing' ? 'live' : 'starting';
  return model.finished !== null ? 'ended' : 'offline';
}

function words(kind: ViewKind, stream: string): string {
  switch (kind) {
    case 'connecting': return `Looking for ${stream}…`;
    case 'offline': return `${stream} is not live. This page starts by itself when the stream does.`;
    case 'starting': return 'Starting…';
    case 'live': return 'Live';
    case 'buffering': return 'Waiting for the picture…';
    case 'paused': return 'Paused. Playing goes on at the live picture.';
    case 'away': return 'The streamer is away for a moment. Playback goes on by itself when they are back.';
    case 'ended': return 'The stream has ended. If it starts again, this page plays it by itself.';
    case 'lost': return 'Connection lost. Trying again…';
    case 'blocked': return 'Your browser waits for you: press Play to start.';
    case 'unsupported': return 'This browser cannot play the stream. A current Chrome, Edge, Firefox or Safari can.';
  }
}

const SECOND_TAB = 'Another tab of this browser already plays with the shortest delay. This one stays a few seconds '
  + 'further behind, and takes over by itself when the other is closed.';

function notice(model: Model): string {
  if (transport(model) === 'webrtc') {
    const elsewhere = model.can.hls ? ' Automatic or HLS, chosen below, may work.' : '';
    return insists(model) && model.trouble !== '' && model.misses === 0 ? `${model.trouble} WebRTC is tried again.${elsewhere}` : '';
  }
  return [fallback(model), model.mode === 'segments' && model.player !== null ? SECOND_TAB : ''].filter(Boolean).join(' ');
}

function fallback({ can, choice, gaveUp }: Model): string {
  if (choice === 'hls') return '';
  if (!can.webRtc) return choice === 'webrtc' ? 'This browser has no WebRTC: the stream is played by HLS, with more delay.' : '';
  return gaveUp === null ? '' : `Playing by HLS, with more delay, because WebRTC did not work. ${gaveUp}`;
}

/** Whether the viewer is offered another try with WebRTC. */
export const mayRetry = ({ choice, gaveUp }: Model): boolean => choice === 'auto' && gaveUp !== null;

const POLL_MS = 2000;
const POLL_SOON_MS = 1000;
const POLL_HIDDEN_MS = 5000;

/** When to ask for the status again: sooner while something is about to change, later while nobody looks. */
export function pollMs(model: Model, hidden: boolean): number {
  if (hidden && model.player === null) return POLL_HIDDEN_MS;
  const calm = model.misses === 0 && (model.player === null ? model.status?.state !== 'away' : model.player.moving);
  return calm ? POLL_MS : POLL_SOON_MS;
}
