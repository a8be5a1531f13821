// Questions to the server, each with a deadline: a network that swallows packets must look like one that refuses them.

/** Longer than any honest answer to a small question, short enough to notice an outage. */
const DEADLINE_MS = 3000;

export interface Answer {
  json: unknown;
  /** When it was asked and answered, by this browser's wall clock. */
  sentMs: number;
  receivedMs: number;
  date: string | null;
}

/** Null when there was no usable answer. */
export async function ask(url: string): Promise<Answer | null> {
  try {
    const sentMs = Date.now();
    const response = await fetch(url, { cache: 'no-store', signal: AbortSignal.timeout(DEADLINE_MS) });
    const receivedMs = Date.now();
    if (!response.ok) return null;
    return { json: await response.json(), sentMs, receivedMs, date: response.headers.get('date') };
  } catch {
    return null;
  }
}
