// Who may play with low latency when the browser speaks HTTP/1.1: one tab, by a lease in shared storage.
//
// HTTP/1.1 gives a browser six connections to a server; one low-latency player keeps four of them busy, so a second
// one would starve both. Web Locks decide where they exist (a secure context); this lease is for the plain-HTTP rest.
// Pure: the shell reads storage, asks `turn`, and writes what it says, once a second and when storage changes.

export interface Lease {
  owner: string;
  untilMs: number;
}

export interface Turn {
  /** This tab may play with low latency. A claim just written counts only when it is still there a turn later. */
  holds: boolean;
  /** What to write, or null to leave storage alone. */
  write: Lease | null;
}

/** Three missed heartbeats: a tab in the background may beat only once a second. */
export const LEASE_MS = 3500;
export const BEAT_MS = 1000;

export function turn(stored: Lease | null, me: string, nowMs: number): Turn {
  // A lease further ahead than anyone writes comes from a clock that was set back: nobody's.
  const valid = stored !== null && stored.untilMs > nowMs && stored.untilMs <= nowMs + 2 * LEASE_MS;
  if (valid && stored.owner !== me) return { holds: false, write: null };
  return { holds: valid, write: { owner: me, untilMs: nowMs + LEASE_MS } };
}

export function parseLease(text: string | null): Lease | null {
  try {
    const value: unknown = JSON.parse(text ?? 'null');
    if (typeof value !== 'object' || value === null) return null;
    const { owner, untilMs } = value as Partial<Lease>;
    return typeof owner === 'string' && typeof untilMs === 'number' ? { owner, untilMs } : null;
  } catch {
    return null;
  }
}

/** HTTP/1.x by the protocol the page came over. Unknown counts as such: the cautious answer costs a few seconds' delay. */
export const sharesConnections = (protocol: string): boolean => !/^h[23]/.test(protocol);
