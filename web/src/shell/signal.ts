// WHIP and WHEP over fetch: offer, restart, delete. One session of either kind differs only in its endpoint and its key.
import { type Link, NO_ANSWER, parseLinks, parseRefusal, type Refusal } from '../core/answer';

/** A server that has to start a transcoder may take this long; a lost packet is sent again well before. */
const DEADLINE_MS = 8000;
/** Nobody reads more of an error page. */
const BODY_MAX = 4096;

export class Refused extends Error {
  constructor(readonly refusal: Refusal) {
    super(refusal.detail);
  }
}

export interface Answered {
  sdp: string;
  session: SessionUrl;
  links: Link[];
}

/** Where a session is changed and ended. The key goes with each request (RFC 9725 4.7). */
export interface SessionUrl {
  url: string;
  key: string | null;
}

const rights = (key: string | null): Record<string, string> => (key === null ? {} : { authorization: `Bearer ${key}` });

async function ask(url: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, { cache: 'no-store', ...init });
  } catch {
    throw new Refused(NO_ANSWER);
  }
  if (response.ok) return response;
  throw new Refused(parseRefusal(response.status, response.headers.get('retry-after'), (await response.text().catch(() => '')).slice(0, BODY_MAX)));
}

/** Throws `Refused`. */
export async function offer(endpoint: string, sdp: string, key: string | null, gone: AbortSignal): Promise<Answered> {
  const headers = { 'content-type': 'application/sdp', ...rights(key) };
  const response = await ask(endpoint, { method: 'POST', body: sdp, headers, signal: AbortSignal.any([gone, AbortSignal.timeout(DEADLINE_MS)]) });
  const location = response.headers.get('location');
  if (response.status !== 201 || location === null) {
    throw new Refused({ status: 501, detail: 'The server answered, but not as WebRTC asks (no 201 with a Location).', retryAfterMs: null });
  }
  const answered = {
    session: { url: new URL(location, response.url).href, key }, links: parseLinks(response.headers.get('link'), response.url),
  };
  try {
    return { ...answered, sdp: await response.text() };
  } catch {
    remove(answered.session);
    throw new Refused(NO_ANSWER);
  }
}

/** The server's fragment for an ICE restart, or null when it will not have one (RFC 9725 4.3.3). */
export async function restart({ url, key }: SessionUrl, fragment: string): Promise<string | null> {
  const headers = { 'content-type': 'application/trickle-ice-sdpfrag', 'if-match': '"*"', ...rights(key) };
  try {
    const response = await ask(url, { method: 'PATCH', body: fragment, headers, signal: AbortSignal.timeout(DEADLINE_MS) });
    return response.status === 200 ? await response.text() : null;
  } catch {
    return null;
  }
}

/** Goes out even while the page closes. Nobody waits for the answer: a session that is not deleted dies by its silence. */
export function remove({ url, key }: SessionUrl): void {
  void fetch(url, { method: 'DELETE', keepalive: true, headers: rights(key) }).catch(() => {});
}

/** Throws `Refused`. */
export async function say(url: string, message: unknown): Promise<void> {
  await ask(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(message), signal: AbortSignal.timeout(DEADLINE_MS) });
}
