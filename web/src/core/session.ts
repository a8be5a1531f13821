// One viewer's WebRTC playback as a state machine: what happened goes in through `step`; `wanted` says which WHEP session
// should exist, and how often its ICE is to be restarted; `stateOf` names the state.
//
//   waiting ──> offering ──> playing          ICE lost: restart first, then another session
//      ^────────────┴───────────┴── ended     no picture for too long: gave up, and the page plays HLS
//
// Pure: no clock, no network, no peer connection. Every input about a session carries its number, so that what an
// abandoned one still says changes nothing.
import { isFinal, type Layer, type Refusal } from './answer';
import type { StreamState } from './status';

export type Input =
  /** The page's status requests: what the server says of the stream, and whether it answers at all. */
  | { kind: 'server'; state: StreamState; reachable: boolean }
  | { kind: 'refused'; attempt: number; refusal: Refusal }
  /** The browser could not use what was answered. */
  | { kind: 'unusable'; attempt: number; why: string }
  | { kind: 'ice'; attempt: number; state: IceState }
  /** The server did not take the restart. */
  | { kind: 'restart-refused'; attempt: number }
  /** Sampled: bytes received so far, and whether a picture was decoded (or sound, where there is no picture). */
  | { kind: 'media'; attempt: number; bytes: number; decoded: boolean }
  | { kind: 'active'; attempt: number }
  /** The publisher is away. */
  | { kind: 'inactive'; attempt: number }
  | { kind: 'ended'; attempt: number; reason: string }
  | { kind: 'layers'; attempt: number; layers: Layer[] }
  /** The viewer chose a layer, or null for automatic. */
  | { kind: 'layer'; encodingId: string | null }
  | { kind: 'tick' };

/** As RTCPeerConnection.iceConnectionState has it. */
export type IceState = 'new' | 'checking' | 'connected' | 'completed' | 'disconnected' | 'failed' | 'closed';

export interface Wanted {
  /** Another number, another session. */
  attempt: number;
  /** How often ICE is to have been restarted in this session. */
  restarts: number;
  layer: string | null;
}

export interface Session {
  /** The viewer asked for WebRTC and nothing else: never give up. */
  insists: boolean;
  server: StreamState;
  reachable: boolean;
  /** waiting: none until `retryAtMs`. offering: one that has not shown anything yet. ended: the server closed it. */
  phase: 'waiting' | 'offering' | 'playing' | 'ended' | 'gave-up';
  sinceMs: number;
  retryAtMs: number;
  attempt: number;
  restarts: number;
  /** Of the restart that has not led to a connection yet. */
  restartedMs: number | null;
  ice: IceState;
  iceSinceMs: number;
  away: boolean;
  bytes: number;
  /** When `bytes` last grew, or when it became reasonable to expect that. */
  mediaMs: number;
  /** Some session has shown a picture. */
  shown: boolean;
  /** Since when there is no picture although the server has one, or null. */
  droughtMs: number | null;
  /** Sessions in a row that failed; spaces out the next ones. */
  failures: number;
  /** What went wrong last, a plain sentence; '' while all is well. */
  trouble: string;
  layers: Layer[];
  layer: string | null;
}

/** A session that shows nothing for this long is not worth waiting for: HLS would have started. */
const FIRST_PICTURE_MS = 4000;
/** Who insists on WebRTC gives each session more: a transcoder may only be starting. */
const FIRST_PICTURE_INSISTING_MS = 8000;
/** After a picture was there, its absence is borne longer: the network may be changing. */
const DROUGHT_MS = 12_000;
/** "disconnected" often heals by itself (W3C WebRTC 5.6.2); longer than this it rarely does. */
const DISCONNECTED_MS = 2000;
/** A restart that works takes two round trips and a few checks. */
const RESTART_MS = 3000;
/** Even a still picture comes with sound or a repeated frame within this time. */
const SILENCE_MS = 2500;
/** A session that has played this long owes nothing to earlier failures. */
const PROVEN_MS = 10_000;
/** More failures in a row than this, each after a moment of picture, and the path is no good. */
const FAILURES_MAX = 5;
const RETRY_MS = 500;
const RETRY_MAX_MS = 8000;
/** Not live, and the server named no time: the page's own status requests are about as frequent. */
const NOT_LIVE_MS = 1000;
/** Told that the stream has ended, while the status still says "live": what is right is known after this. */
const ENDED_MS = 1000;

export function initial(insists: boolean, nowMs: number): Session {
  return {
    insists, server: 'live', reachable: true, phase: 'waiting', sinceMs: nowMs, retryAtMs: nowMs, attempt: 0, restarts: 0,
    restartedMs: null, ice: 'new', iceSinceMs: nowMs, away: false, bytes: 0, mediaMs: nowMs, shown: false, droughtMs: null,
    failures: 0, trouble: '', layers: [], layer: null,
  };
}

export function step(session: Session, input: Input, nowMs: number): Session {
  if (session.phase === 'gave-up' || ('attempt' in input && input.attempt !== session.attempt)) return session;
  return surrender(judge(apply(session, input, nowMs), nowMs), nowMs);
}

function apply(session: Session, input: Input, nowMs: number): Session {
  switch (input.kind) {
    case 'server': return heard(session, input.state, input.reachable, nowMs);
    case 'refused': return refused(session, input.refusal, nowMs);
    case 'unusable': return session.insists ? failed(session, input.why, nowMs) : gaveUp(session, input.why, nowMs);
    case 'ice': return ice(session, input.state, nowMs);
    case 'restart-refused': return session.restartedMs === null ? session : failed(session, NO_PATH, nowMs);
    case 'media': return media(session, input.bytes, input.decoded, nowMs);
    case 'active': return { ...session, away: false, mediaMs: nowMs };
    case 'inactive': return { ...session, away: true };
    case 'ended': return ended(session, input.reason, nowMs);
    case 'layers': return { ...session, layers: input.layers, layer: known(session.layer, input.layers) };
    case 'layer': return { ...session, layer: known(input.encodingId, session.layers) };
    case 'tick': return session;
  }
}

const known = (layer: string | null, layers: Layer[]): string | null => (layers.some(({ encodingId }) => encodingId === layer) ? layer : null);

function heard(session: Session, state: StreamState, reachable: boolean, nowMs: number): Session {
  const next = { ...session, server: state, reachable };
  // What a status request says is up to two seconds old; only its change is news beside the session's own events.
  if (state !== session.server) Object.assign(next, { away: state === 'away', mediaMs: nowMs });
  if (!reachable || session.reachable) return next;
  // The network is back: what failed without it says nothing about WebRTC.
  return { ...next, failures: 0, droughtMs: null, ...(next.phase === 'waiting' ? { retryAtMs: nowMs } : { sinceMs: nowMs }) };
}

const RETRY_WORDS = 'The server has no WebRTC session to give right now.';

function refused(session: Session, refusal: Refusal, nowMs: number): Session {
  const why = refusal.detail || (refusal.status === 0 ? 'The server did not answer.' : RETRY_WORDS);
  if (isFinal(refusal)) return session.insists ? waiting(session, RETRY_MAX_MS, why, nowMs) : gaveUp(session, why, nowMs);
  if (refusal.status === 404) return waiting(session, refusal.retryAfterMs ?? NOT_LIVE_MS, '', nowMs);
  const next = refusal.retryAfterMs === null ? { ...session, failures: session.failures + 1 } : session;
  const waitMs = refusal.retryAfterMs ?? retryMs(next.failures);
  const tooLong = !session.insists && nowMs + waitMs > (session.droughtMs ?? nowMs) + droughtMax(session);
  return tooLong ? gaveUp(session, why, nowMs) : waiting(next, waitMs, why, nowMs);
}

function ice(session: Session, state: IceState, nowMs: number): Session {
  const joined = isJoined(state);
  // After a restart the first media needs its time again.
  const renewed = joined && session.restartedMs !== null ? { restartedMs: null, mediaMs: nowMs } : {};
  return { ...session, ice: state, iceSinceMs: state === session.ice ? session.iceSinceMs : nowMs, ...renewed };
}

const isJoined = (state: IceState): boolean => state === 'connected' || state === 'completed';

function media(session: Session, bytes: number, decoded: boolean, nowMs: number): Session {
  const arrived = bytes !== session.bytes;
  // What arrives after a restart proves the path, even where the browser never called it lost.
  const renewed: Partial<Session> = arrived && session.restartedMs !== null ? { restartedMs: null, ice: 'connected', iceSinceMs: nowMs } : {};
  const next = arrived ? { ...session, bytes, mediaMs: nowMs, ...renewed } : session;
  return decoded && next.phase === 'offering' ? { ...next, phase: 'playing', sinceMs: nowMs, shown: true, trouble: '' } : next;
}

function ended(session: Session, reason: string, nowMs: number): Session {
  if (reason === 'codec-changed') return begin(session, nowMs);
  if (reason === 'stream-ended') return { ...session, phase: 'ended', sinceMs: nowMs };
  return waiting(session, RETRY_MS, '', nowMs);
}

const NO_PATH = 'No way for the media was found: UDP may be blocked between the server and here.';
const NO_PICTURE = 'The connection was made, but no picture arrived.';
const SILENT = 'The picture stopped arriving.';

/** What time alone brings about. */
function judge(session: Session, nowMs: number): Session {
  const forMs = nowMs - session.sinceMs, live = session.reachable && session.server === 'live' && !session.away;
  switch (session.phase) {
    case 'waiting': return session.reachable && session.server === 'live' && nowMs >= session.retryAtMs ? begin(session, nowMs) : session;
    case 'offering': {
      if (session.ice === 'failed') return failed(session, NO_PATH, nowMs);
      const maxMs = session.insists ? FIRST_PICTURE_INSISTING_MS : FIRST_PICTURE_MS;
      return live && forMs >= maxMs ? failed(session, isJoined(session.ice) ? NO_PICTURE : NO_PATH, nowMs) : session;
    }
    case 'playing': return judgePlaying(session, live, nowMs);
    case 'ended': return live && forMs >= ENDED_MS ? begin(session, nowMs) : session;
    case 'gave-up': return session;
  }
}

function judgePlaying(session: Session, live: boolean, nowMs: number): Session {
  if (session.restartedMs !== null) return nowMs - session.restartedMs >= RESTART_MS && session.reachable ? failed(session, NO_PATH, nowMs) : session;
  const lost = session.ice === 'failed' || (session.ice === 'disconnected' && nowMs - session.iceSinceMs >= DISCONNECTED_MS);
  if (lost && session.reachable) return { ...session, restarts: session.restarts + 1, restartedMs: nowMs };
  if (session.ice === 'disconnected') return session; // its own time runs
  if (live && nowMs - session.mediaMs >= SILENCE_MS) return failed(session, SILENT, nowMs);
  return session.failures > 0 && nowMs - session.sinceMs >= PROVEN_MS ? { ...session, failures: 0 } : session;
}

const retryMs = (failures: number): number => (failures === 0 ? 0 : Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** (failures - 1)));

function begin(session: Session, nowMs: number): Session {
  return {
    ...session, phase: 'offering', sinceMs: nowMs, attempt: session.attempt + 1, restarts: 0, restartedMs: null, ice: 'new',
    iceSinceMs: nowMs, away: false, bytes: 0, mediaMs: nowMs, layers: [],
  };
}

/** The first failure of a session that had played is answered at once; others wait longer and longer. */
function failed(session: Session, why: string, nowMs: number): Session {
  const failures = session.failures + 1;
  const waitMs = session.phase === 'playing' && failures === 1 ? 0 : retryMs(failures);
  return waiting({ ...session, failures }, waitMs, why, nowMs);
}

const waiting = (session: Session, waitMs: number, trouble: string, nowMs: number): Session =>
  ({ ...session, phase: 'waiting', sinceMs: nowMs, retryAtMs: nowMs + waitMs, away: false, trouble });

const gaveUp = (session: Session, trouble: string, nowMs: number): Session => ({ ...session, phase: 'gave-up', sinceMs: nowMs, trouble });

const droughtMax = (session: Session): number => (session.shown ? DROUGHT_MS : FIRST_PICTURE_MS);

/** Gives WebRTC up when there has been no picture for too long, or too often. */
function surrender(session: Session, nowMs: number): Session {
  const dry = session.phase !== 'playing' && session.phase !== 'gave-up' && session.server === 'live' && session.reachable && !session.away;
  const next = { ...session, droughtMs: dry ? session.droughtMs ?? nowMs : null };
  if (next.insists || next.droughtMs === null) return next;
  const over = nowMs - next.droughtMs >= droughtMax(next) || next.failures >= FAILURES_MAX;
  return over ? gaveUp(next, next.trouble || RETRY_WORDS, nowMs) : next;
}

/** The WHEP session that should exist, or null. */
export const wanted = ({ phase, attempt, restarts, layer, layers }: Session): Wanted | null =>
  phase === 'offering' || phase === 'playing' ? { attempt, restarts, layer: known(layer, layers) } : null;

export type State = 'connecting' | 'playing' | 'reconnecting' | 'away' | 'ended' | 'gave-up';

export function stateOf(session: Session): State {
  if (session.phase === 'gave-up' || session.phase === 'ended') return session.phase;
  if (session.away || session.server === 'away') return 'away';
  if (session.phase === 'playing' && session.restartedMs === null) return 'playing';
  return session.shown || session.failures > 0 ? 'reconnecting' : 'connecting';
}

/** Whether media arrives and is shown: what the page calls a picture that moves. */
export const isFlowing = (session: Session, nowMs: number): boolean => session.phase === 'playing' && nowMs - session.mediaMs < SILENCE_MS;
