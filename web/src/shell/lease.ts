// Asks for, keeps and gives back a right that only one tab of this browser has over HTTP/1.1: to play with low latency,
// or to hear the events of a WebRTC session.
import { BEAT_MS, type Lease, parseLease, sharesConnections, turn } from '../core/lease';

/** A claim in shared storage counts when it is still there after this: two tabs may have written at once. */
const CONFIRM_MS = 250;
/** Tabs that hear of a freed lease at the same moment claim it at different ones. */
const SCATTER_MS = 500;

/** The protocol the page came over, as the browser names it: "http/1.1", "h2", "h3". */
function protocol(): string {
  const entries = [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')];
  return (entries as PerformanceResourceTiming[]).find((entry) => entry.nextHopProtocol)?.nextHopProtocol ?? '';
}

export class TabLease {
  private readonly needed = sharesConnections(protocol());
  private held: boolean | null = null;
  private release: (() => void) | null = null;
  /** Where storage is forbidden, this tab cannot know of others: it remembers only its own lease. */
  private remembered: Lease | null = null;

  /** Tells `changed` each time this tab gains or loses the right; the first answer comes soon after `take`. */
  constructor(private readonly name: string, private readonly changed: (holds: boolean) => void) {}

  take(): void {
    if (this.release !== null) return;
    if (!this.needed) {
      this.release = () => {};
      return this.say(true);
    }
    this.release = 'locks' in navigator ? this.takeLock(navigator.locks) : this.takeStorage();
  }

  give(): void {
    this.release?.();
    this.release = null;
    this.held = null;
  }

  private say(holds: boolean): void {
    if (this.held === holds) return;
    this.held = holds;
    this.changed(holds);
  }

  private takeLock(locks: LockManager): () => void {
    const stop = new AbortController();
    const gone = new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve()));
    const hold = () => {
      if (!stop.signal.aborted) this.say(true);
      return gone;
    };
    void locks.request(this.name, { ifAvailable: true }, (lock) => {
      if (lock !== null) return hold();
      if (stop.signal.aborted) return undefined;
      this.say(false);
      locks.request(this.name, { signal: stop.signal }, hold).catch(() => {}); // aborted while waiting: given back
      return undefined;
    });
    return () => stop.abort();
  }

  private takeStorage(): () => void {
    const me = Math.random().toString(36).slice(2);
    let soon = 0;
    const later = (what: () => void, delayMs: number) => {
      clearTimeout(soon);
      soon = window.setTimeout(what, delayMs);
    };
    const beat = () => {
      const { holds, write } = turn(this.stored(), me, Date.now());
      if (write !== null) this.store(write);
      if (holds || write === null) return this.say(holds);
      later(() => this.say(this.stored()?.owner === me), CONFIRM_MS);
    };
    // Another tab wrote. Nothing is written in answer, or two tabs that see each other late would answer for ever.
    const heard = ({ key, newValue }: StorageEvent) => {
      if (key !== this.name) return;
      const lease = parseLease(newValue);
      if (lease === null) later(beat, Math.random() * SCATTER_MS);
      else if (lease.owner !== me) {
        clearTimeout(soon);
        this.say(false);
      }
    };
    const release = () => {
      clearInterval(timer);
      clearTimeout(soon);
      window.removeEventListener('storage', heard);
      window.removeEventListener('pagehide', release);
      if (this.stored()?.owner === me) this.store(null);
    };
    const timer = window.setInterval(beat, BEAT_MS);
    window.addEventListener('storage', heard);
    window.addEventListener('pagehide', release);
    later(beat, 0); // not now: the answer would arrive inside `take`
    return release;
  }

  private stored(): Lease | null {
    try {
      return parseLease(localStorage.getItem(this.name));
    } catch {
      return this.remembered;
    }
  }

  private store(lease: Lease | null): void {
    this.remembered = lease;
    try {
      if (lease === null) localStorage.removeItem(this.name);
      else localStorage.setItem(this.name, JSON.stringify(lease));
    } catch {
      // Forbidden: `remembered` is all there is.
    }
  }
}
