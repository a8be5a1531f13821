// How far the server's wall clock is from this browser's, from the answers to status requests.
//
// Each answer bounds the difference by half its round trip. The quickest of the last answers is believed: a slow one
// says little. Differences matter, because the delay shown to a viewer is "server's clock now" minus the picture's date.

interface Answer {
  offsetMs: number;
  roundTripMs: number;
}

/** About a minute of answers at one every two seconds: long enough to meet a quick one, short enough to follow a drift. */
const ANSWERS_MAX = 32;

/** An HTTP `Date` header counts whole seconds, so on average it is half a second behind. */
const DATE_HEADER_LAG_MS = 500;

export class ServerClock {
  private answers: Answer[] = [];

  /** An answer that carried the server's time in milliseconds. */
  push(sentMs: number, receivedMs: number, serverMs: number): void {
    const roundTripMs = Math.max(0, receivedMs - sentMs);
    this.answers.push({ offsetMs: serverMs - (sentMs + receivedMs) / 2, roundTripMs });
    if (this.answers.length > ANSWERS_MAX) this.answers.shift();
  }

  /** An answer with only a `Date` header: used until a better one comes. */
  pushDate(sentMs: number, receivedMs: number, header: string | null): void {
    const serverMs = Date.parse(header ?? '');
    if (Number.isFinite(serverMs)) this.push(sentMs, receivedMs + 2 * DATE_HEADER_LAG_MS, serverMs + 2 * DATE_HEADER_LAG_MS);
  }

  /** Add this to the browser's clock to get the server's; null before the first answer. */
  get offsetMs(): number | null {
    let best: Answer | null = null;
    for (const answer of this.answers) if (best === null || answer.roundTripMs <= best.roundTripMs) best = answer;
    return best === null ? null : best.offsetMs;
  }
}
