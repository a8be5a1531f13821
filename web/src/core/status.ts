// What the server says about a stream: the answers of `status.json` and `live.json`, parsed once at the rim.
// Everything else in the page works on these values and never on raw JSON.

/** live: a publisher is sending. away: it left and may come back. offline: nothing to play. */
export type StreamState = 'live' | 'away' | 'offline';

export interface Status {
  state: StreamState;
  /** Changes with every new presentation at the same address. */
  presentation: string;
  /** Changes when a track is added: the player must load the multivariant playlist again. */
  tracks: string;
  video: boolean;
  audio: boolean;
  /** The server's wall clock in milliseconds when it answered, if it said so. */
  nowMs: number | null;
}

/** One line of the list of what is live. */
export interface Listed {
  stream: string;
  state: StreamState;
  /** When this state began, in milliseconds since 1970, or null when the server did not say. */
  sinceMs: number | null;
  video: boolean;
  audio: boolean;
  width: number | null;
  height: number | null;
  /** There is a small picture of it (`thumbnail.jpg`). */
  thumbnail: boolean;
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
const text = (value: unknown): string => (typeof value === 'string' || typeof value === 'number' ? String(value) : '');
const number = (value: unknown): number | null => (typeof value === 'number' && Number.isFinite(value) ? value : null);
const time = (value: unknown): number | null => (typeof value === 'string' ? number(Date.parse(value)) : null);
const streamState = (value: unknown): StreamState => (value === 'live' || value === 'away' ? value : 'offline');

/** Null when this is not an answer of ours (a proxy's error page, say): the caller treats it as no answer. */
export function parseStatus(json: unknown): Status | null {
  if (!isRecord(json) || typeof json.state !== 'string') return null;
  return {
    state: streamState(json.state),
    presentation: text(json.presentation),
    tracks: text(json.tracks),
    video: json.video !== false,
    audio: json.audio !== false,
    nowMs: number(json.now),
  };
}

export function parseListing(json: unknown): Listed[] | null {
  if (!isRecord(json) || !Array.isArray(json.streams)) return null;
  return json.streams.filter(isRecord).filter((entry) => text(entry.stream) !== '').map((entry) => ({
    stream: text(entry.stream),
    state: streamState(entry.state),
    sinceMs: time(entry.since),
    video: entry.video !== false,
    audio: entry.audio !== false,
    width: number(entry.width),
    height: number(entry.height),
    thumbnail: entry.thumbnail === true,
  }));
}

/** The stream's name in the address of a watch page: `/watch/<stream>`. */
export function streamOfPath(path: string): string {
  const name = /^\/watch\/([^/]+)\/?$/.exec(path)?.[1] ?? '';
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}
