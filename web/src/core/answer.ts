// What a WHIP or WHEP endpoint says besides the session description: links, refusals, layers. Parsed once at the rim.

/** One value of a Link header (RFC 8288). */
export interface Link {
  url: string;
  /** Lower-case names. */
  parameters: Record<string, string>;
}

/** A header longer than this is not ours. */
const LINK_LENGTH_MAX = 8192;

export function parseLinks(header: string | null, base: string): Link[] {
  if (header === null || header.length > LINK_LENGTH_MAX) return [];
  return [...header.matchAll(/<([^>]*)>((?:\s*;\s*[^\s=;,"]+\s*(?:=\s*(?:"[^"]*"|[^\s;,"]*))?)*)/g)].map(([, target, rest]) => {
    const named = [...rest!.matchAll(/;\s*([^\s=;,"]+)\s*(?:=\s*(?:"([^"]*)"|([^\s;,"]*)))?/g)];
    const parameters = Object.fromEntries(named.map(([, name, quoted, plain]) => [name!.toLowerCase(), quoted ?? plain ?? '']));
    return { url: absolute(target!, base), parameters };
  });
}

function absolute(url: string, base: string): string {
  try {
    return new URL(url, base).href;
  } catch {
    return url;
  }
}

export const linkOf = (links: Link[], rel: string): string | null => links.find((link) => link.parameters.rel === rel)?.url ?? null;

/** STUN and TURN servers (RFC 9725 4.6). `stun:` and `turn:` addresses stay as they are written. */
export function iceServers(links: Link[]): { urls: string; username?: string; credential?: string }[] {
  return links.filter((link) => link.parameters.rel === 'ice-server').map(({ url, parameters: { username, credential } }) => ({
    urls: url, ...(username === undefined ? {} : { username }), ...(credential === undefined ? {} : { credential }),
  }));
}

/** Why a request was not granted. */
export interface Refusal {
  /** The HTTP status; 0 when there was no answer at all. */
  status: number;
  /** The server's own sentence (RFC 9457), or ''. */
  detail: string;
  /** How long the server asks to wait. */
  retryAfterMs: number | null;
}

export const NO_ANSWER: Refusal = { status: 0, detail: '', retryAfterMs: null };

/** More than a minute is not waited for without asking again. */
const RETRY_AFTER_MAX_S = 60;

export function parseRefusal(status: number, retryAfter: string | null, body: string): Refusal {
  const seconds = retryAfter === null || retryAfter.trim() === '' ? NaN : Number(retryAfter);
  return { status, detail: detailOf(body), retryAfterMs: seconds >= 0 ? Math.min(seconds, RETRY_AFTER_MAX_S) * 1000 : null };
}

function detailOf(body: string): string {
  try {
    const { detail, title } = JSON.parse(body) as { detail?: unknown; title?: unknown };
    return typeof detail === 'string' ? detail : typeof title === 'string' ? title : '';
  } catch {
    return '';
  }
}

/** Asking again will not help: the request itself, its right, or the server's abilities are at fault. */
export const isFinal = ({ status }: Refusal): boolean =>
  (status >= 400 && status < 500 && ![404, 408, 409, 425, 429].includes(status)) || status === 501 || status === 505;

/** One of the encodings of the same picture: a publisher's layer, or a rung of the server's ladder. */
export interface Layer {
  encodingId: string;
  width: number | null;
  height: number | null;
  active: boolean;
  /** Where they tell two of one size apart. */
  framesPerSecond?: number;
  bitsPerSecond?: number;
}

/** As many layers as a publisher may send, and six rungs: no menu should be longer. */
const LAYERS_MAX = 14;

export function parseLayers(text: string): Layer[] {
  const listed = record(parse(text)).layers;
  if (!Array.isArray(listed)) return [];
  return listed.map(record).filter(({ encodingId }) => typeof encodingId === 'string').slice(0, LAYERS_MAX).map((one) => ({
    encodingId: one.encodingId as string, width: number(one.width), height: number(one.height), active: one.active !== false,
    ...optional('framesPerSecond', one), ...optional('bitsPerSecond', one),
  }));
}

/** The reason in the data of an `ended` event. */
export function parseReason(text: string): string {
  const { reason } = record(parse(text));
  return typeof reason === 'string' ? reason : '';
}

const record = (value: unknown): Record<string, unknown> => (typeof value === 'object' && value !== null ? value as Record<string, unknown> : {});
const optional = <Name extends string>(name: Name, { [name]: value }: Record<string, unknown>): { [key in Name]?: number } =>
  (number(value) === null ? {} : { [name]: value } as { [key in Name]?: number });
const number = (value: unknown): number | null => (typeof value === 'number' && Number.isFinite(value) ? value : null);

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
