// The studio as a state machine: capturing, publishing by WHIP, and coming back by itself after a lost connection.
//
// Pure, in the manner of core/page.ts: `step` takes what happened, `wanted` says which WHIP session should exist, `view`
// which words are shown. A refusal that asking again cannot mend ends publishing; everything else is tried again.
import { isFinal, type Refusal } from './answer';
import type { IceState } from './session';

export type Input =
  /** There is a picture or sound to send, or no longer. */
  | { kind: 'captured'; sources: Sources | null }
  | { kind: 'not-captured'; source: Source; name: string }
  /** The browser's own button ended the capture, or a device was unplugged. */
  | { kind: 'source-ended'; source: Source }
  | { kind: 'start' }
  | { kind: 'stop' }
  | { kind: 'refused'; attempt: number; refusal: Refusal }
  | { kind: 'unusable'; attempt: number; why: string }
  | { kind: 'ice'; attempt: number; state: IceState }
  /** Sampled: frames encoded and packets sent so far. */
  | { kind: 'sent'; attempt: number; frames: number; packets: number }
  | { kind: 'tick' };

export type Source = 'screen' | 'camera' | 'microphone';

export interface Sources {
  picture: boolean;
  sound: boolean;
}

export interface Studio {
  sources: Sources | null;
  /** stopped: not publishing. offering: not connected yet. waiting: until `retryAtMs`, then another session. */
  phase: 'stopped' | 'offering' | 'live' | 'waiting';
  sinceMs: number;
  retryAtMs: number;
  attempt: number;
  ice: IceState;
  iceSinceMs: number;
  frames: number;
  packets: number;
  /** Since `start`, a session was connected: refusals may now come from our own previous session. */
  wasLive: boolean;
  failures: number;
  /** A plain sentence, or ''. */
  error: string;
}

/** Offering and checking every path takes less, or never succeeds. */
const CONNECT_MS = 10_000;
/** "disconnected" often heals by itself (W3C WebRTC 5.6.2). */
const DISCONNECTED_MS = 3000;
/** The slowest encoder has begun by then. */
const ENCODE_MS = 5000;
/** A session that has been up this long owes nothing to earlier failures. */
const PROVEN_MS = 10_000;
const RETRY_MS = 1000;
const RETRY_MAX_MS = 10_000;

export function initial(): Studio {
  return {
    sources: null, phase: 'stopped', sinceMs: 0, retryAtMs: 0, attempt: 0, ice: 'new', iceSinceMs: 0, frames: 0, packets: 0,
    wasLive: false, failures: 0, error: '',
  };
}

export function step(studio: Studio, input: Input, nowMs: number): Studio {
  if ('attempt' in input && (input.attempt !== studio.attempt || wanted(studio) === null)) return studio;
  return judge(apply(studio, input, nowMs), nowMs);
}

function apply(studio: Studio, input: Input, nowMs: number): Studio {
  switch (input.kind) {
    case 'captured': return { ...studio, sources: input.sources, error: input.sources === null ? studio.error : '' };
    case 'not-captured': return { ...stopped(studio, nowMs), error: captureWords(input.source, input.name) };
    case 'source-ended': return { ...stopped(studio, nowMs), sources: null, error: `${SOURCES[input.source]} has ended. Choose again to go on.` };
    case 'start': return studio.sources === null || studio.phase !== 'stopped' ? studio : begin({ ...studio, failures: 0, wasLive: false, error: '' }, nowMs);
    case 'stop': return { ...stopped(studio, nowMs), error: '' };
    case 'refused': return refused(studio, input.refusal, nowMs);
    case 'unusable': return { ...stopped(studio, nowMs), error: input.why };
    case 'ice': return ice(studio, input.state, nowMs);
    case 'sent': return { ...studio, frames: input.frames, packets: input.packets };
    case 'tick': return studio;
  }
}

function ice(studio: Studio, state: IceState, nowMs: number): Studio {
  const next = { ...studio, ice: state, iceSinceMs: state === studio.ice ? studio.iceSinceMs : nowMs };
  const joined = state === 'connected' || state === 'completed';
  return joined && studio.phase === 'offering' ? { ...next, phase: 'live', sinceMs: nowMs, wasLive: true, error: '' } : next;
}

function refused(studio: Studio, refusal: Refusal, nowMs: number): Studio {
  const why = refusalWords(refusal);
  // The name may still be held by the session that we have just lost.
  const own = refusal.status === 409 && studio.wasLive;
  const lasting = isFinal(refusal) || refusal.status === 404 || (refusal.status === 409 && !own);
  return lasting ? { ...stopped(studio, nowMs), error: why } : failed(studio, why, refusal.retryAfterMs, nowMs);
}

const NO_PATH = 'The server answered, but no way for the media was found: UDP may be blocked between here and the server.';
const LOST = 'The connection was lost.';

function judge(studio: Studio, nowMs: number): Studio {
  const forMs = nowMs - studio.sinceMs;
  switch (studio.phase) {
    case 'stopped': return studio;
    case 'waiting': return nowMs >= studio.retryAtMs ? begin(studio, nowMs) : studio;
    case 'offering': return studio.ice === 'failed' || forMs >= CONNECT_MS ? failed(studio, NO_PATH, null, nowMs) : studio;
    case 'live': {
      const lost = studio.ice === 'failed' || (studio.ice === 'disconnected' && nowMs - studio.iceSinceMs >= DISCONNECTED_MS);
      if (lost) return failed(studio, LOST, 0, nowMs);
      return studio.failures > 0 && forMs >= PROVEN_MS ? { ...studio, failures: 0 } : studio;
    }
  }
}

const begin = (studio: Studio, nowMs: number): Studio => ({
  ...studio, phase: 'offering', sinceMs: nowMs, attempt: studio.attempt + 1, ice: 'new', iceSinceMs: nowMs, frames: 0, packets: 0,
});

const stopped = (studio: Studio, nowMs: number): Studio => ({ ...studio, phase: 'stopped', sinceMs: nowMs });

function failed(studio: Studio, error: string, waitMs: number | null, nowMs: number): Studio {
  const failures = studio.failures + 1;
  const backOffMs = Math.min(RETRY_MAX_MS, RETRY_MS * 2 ** (failures - 1));
  // A lost connection is answered at once, but only the first time: losing it again and again is slowed down.
  const retryAtMs = nowMs + (waitMs === 0 && failures > 1 ? backOffMs : waitMs ?? backOffMs);
  return { ...studio, phase: 'waiting', sinceMs: nowMs, retryAtMs, failures, error };
}

/** The WHIP session that should exist, or null. */
export const wanted = ({ phase, attempt }: Studio): number | null => (phase === 'offering' || phase === 'live' ? attempt : null);

export type State = 'idle' | 'ready' | 'connecting' | 'live' | 'reconnecting' | 'failed';

export function stateOf({ phase, sources, error, wasLive, failures }: Studio): State {
  if (phase === 'stopped') return error !== '' ? 'failed' : sources === null ? 'idle' : 'ready';
  if (phase === 'live') return 'live';
  return wasLive || failures > 0 ? 'reconnecting' : 'connecting';
}

export interface View {
  state: State;
  message: string;
  error: string;
}

export function view(studio: Studio, nowMs: number): View {
  const state = stateOf(studio);
  return { state, message: MESSAGES[state], error: studio.error || silence(studio, nowMs) };
}

const MESSAGES: Record<State, string> = {
  idle: 'Choose what to send, then go live.',
  ready: 'This is what viewers will see. Nothing is sent yet.',
  connecting: 'Connecting…',
  live: 'You are live.',
  reconnecting: 'Connecting again…',
  failed: 'Not live.',
};

function silence(studio: Studio, nowMs: number): string {
  if (studio.phase !== 'live' || nowMs - studio.sinceMs < ENCODE_MS) return '';
  if (studio.sources?.picture && studio.frames === 0) return 'This browser’s encoder gives no picture. A lower bitrate, no simulcast, or another browser may help.';
  return studio.packets === 0 ? 'Connected, but nothing is being sent.' : '';
}

const SOURCES: Record<Source, string> = { screen: 'Sharing the screen', camera: 'The camera', microphone: 'The microphone' };
const DEVICES: Record<Source, string> = { screen: 'screen', camera: 'camera', microphone: 'microphone' };

/** `name` is that of the DOMException, or 'insecure' where the browser keeps devices from pages over plain HTTP. */
function captureWords(source: Source, name: string): string {
  const device = DEVICES[source];
  switch (name) {
    case 'insecure': return 'Browsers give screens, cameras and microphones only to pages over HTTPS, or on localhost. Open this page so.';
    case 'NotAllowedError': return source === 'screen' ? 'No screen was chosen, or your system does not allow sharing it.'
      : `This page may not use the ${device}. Allow it in the browser’s address bar, then try again.`;
    case 'NotFoundError': return `No ${device} was found.`;
    case 'NotReadableError': return `The ${device} cannot be read. Another program may be using it.`;
    case 'OverconstrainedError': return `The chosen ${device} is no longer there. Choose another.`;
    default: return `The ${device} could not be opened (${name}).`;
  }
}

function refusalWords({ status, detail }: Refusal): string {
  const known = REFUSALS[status] ?? (status >= 500 ? 'The server cannot take a publisher right now.' : `The server refused (${status}).`);
  return detail === '' ? known : `${known} ${detail}`;
}

const REFUSALS: Record<number, string> = {
  0: 'The server does not answer.',
  401: 'The stream key is wrong for this name.',
  403: 'The stream key is wrong for this name.',
  404: 'There is no place to publish under this name.',
  405: 'This server takes no publishers over WebRTC (WHIP).',
  406: 'The server knows none of the codecs that this browser offers.',
  409: 'Somebody is already live under this name.',
  429: 'Too many tries. Wait a moment.',
  501: 'This server takes no publishers over WebRTC (WHIP).',
};

/** As RTCRtpEncodingParameters has it. */
export interface Encoding {
  rid?: string;
  scaleResolutionDownBy?: number;
  maxBitrate: number;
}

/** How the bitrate is shared among one, two or three layers: each doubling of the size costs about three times as much. */
const SHARES: Record<number, readonly number[]> = { 1: [1], 2: [0.25, 0.75], 3: [0.08, 0.22, 0.7] };
const RIDS = ['l', 'm', 'h'];

/** Smallest first: that is the one Chromium keeps when the network is thin. */
export function encodings(layers: number, bitsPerSecond: number): Encoding[] {
  const shares = SHARES[layers] ?? SHARES[1]!;
  if (shares.length === 1) return [{ maxBitrate: bitsPerSecond }];
  const rids = shares.length === 2 ? ['l', 'h'] : RIDS;
  return shares.map((share, i) => ({
    rid: rids[i]!, scaleResolutionDownBy: 2 ** (shares.length - 1 - i), maxBitrate: Math.round(share * bitsPerSecond),
  }));
}

/** As the server has it: 1 to 64 letters, digits, '-' or '_'. */
export const isStreamName = (name: string): boolean => /^[A-Za-z0-9_-]{1,64}$/.test(name);
