import { describe, expect, test } from 'vitest';
import { type Choice, initial, type Input, mayRetry, type Model, needsLease, parseChoice, pollMs, step, view, type ViewKind, wanted } from './page';
import type { Status, StreamState } from './status';

const status = (state: StreamState, presentation = 'p1', tracks = 'av'): Input => {
  const value: Status = { state, presentation, tracks, video: true, audio: true, nowMs: null };
  return { kind: 'status', status: value };
};
const LOW: Input = { kind: 'mode', mode: 'low-latency' };
const SEGMENTS: Input = { kind: 'mode', mode: 'segments' };
const NO_ANSWER: Input = { kind: 'no-answer' };
const TICK: Input = { kind: 'tick' };
const MOVING: Input = { kind: 'moving', moving: true };
const STILL: Input = { kind: 'moving', moving: false };

/** A page in virtual time. */
class Page {
  nowMs = 0;
  model: Model;

  constructor(hls = true, webRtc = false, choice: Choice = 'auto') {
    this.model = initial('demo', { hls, webRtc }, choice);
  }

  put(...inputs: Input[]): this {
    for (const input of inputs) this.model = step(this.model, input, this.nowMs);
    return this;
  }

  player(event: 'playing' | 'ended' | 'failed'): this {
    return this.put({ kind: 'player', key: this.model.player!.key, event });
  }

  /** Time passes in ticks of 100 ms. */
  wait(ms: number): this {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs;) {
      this.nowMs += 100;
      this.put(TICK);
    }
    return this;
  }

  live(): this {
    return this.put(status('live'), LOW).player('playing').put(MOVING);
  }

  get kind(): ViewKind {
    return view(this.model, this.nowMs).kind;
  }

  get key(): string | null {
    return wanted(this.model)?.key ?? null;
  }
}

describe('words for every state', () => {
  const check = (name: ViewKind, page: () => Page) => test(name, () => {
    const { nowMs, model } = page();
    const shown = view(model, nowMs);
    expect(shown.kind).toBe(name);
    expect(shown.message).not.toBe('');
    expect(shown.covers).toBe(name !== 'live' && name !== 'paused');
  });
  check('connecting', () => new Page());
  check('unsupported', () => new Page(false).put(status('live'), LOW));
  check('offline', () => new Page().put(status('offline')));
  check('starting', () => new Page().put(status('live'), LOW));
  check('live', () => new Page().live());
  check('buffering', () => new Page().live().put(STILL).wait(1000));
  check('paused', () => new Page().live().put({ kind: 'paused', paused: true }, STILL));
  check('blocked', () => new Page().put(status('live'), LOW, { kind: 'blocked', blocked: true }));
  check('away', () => new Page().live().put(STILL, status('away')));
  check('ended', () => new Page().live().put(status('offline')).player('ended'));
  check('lost', () => new Page().live().put(STILL, NO_ANSWER));

  test('the sentences asked for', () => {
    expect(view(new Page().put(status('offline')).model, 0).message).toBe('demo is not live. This page starts by itself when the stream does.');
    expect(view(new Page().put(status('away')).model, 0).message).toBe('The streamer is away for a moment. Playback goes on by itself when they are back.');
    expect(view(new Page().put(status('live'), NO_ANSWER).model, 0).message).toBe('Connection lost. Trying again…');
  });
});

describe('starting', () => {
  test('nothing is held while nothing is live', () => {
    const page = new Page().put(status('offline'));
    expect([needsLease(page.model), page.key]).toEqual([false, null]);
    page.put(status('live'));
    expect([needsLease(page.model), page.key]).toEqual([true, null]); // the lease answers first
    expect(page.put(LOW).key).toBe('p1/av/low-latency/0');
  });

  test('a page opened while the streamer is away waits', () => {
    const page = new Page().put(status('away'), LOW);
    expect([page.kind, page.key]).toEqual(['away', null]);
    expect(page.put(status('live')).key).not.toBeNull();
  });

  test('a first answer that fails once is not yet a lost connection', () => {
    const page = new Page().put(NO_ANSWER);
    expect(page.kind).toBe('connecting');
    expect(page.put(NO_ANSWER).kind).toBe('lost');
  });
});

describe('the streamer comes and goes', () => {
  test('one player lives through an absence', () => {
    const page = new Page().live(), key = page.key;
    page.put(STILL, status('away')).wait(55_000);
    expect([page.kind, page.key]).toEqual(['away', key]);
    page.put(MOVING, status('live')).wait(1000);
    expect([page.kind, page.key]).toEqual(['live', key]);
  });

  test('what is buffered is played while the server already says away', () => {
    expect(new Page().live().put(status('away')).kind).toBe('live');
  });

  test('a player that does not go on by itself is replaced', () => {
    const page = new Page().live(), key = page.key;
    page.put(STILL, status('away')).wait(20_000).put(status('live')).wait(4000);
    expect(page.key).toBe(key);
    expect(page.wait(1500).key).not.toBe(key);
  });

  test('an added track means a new player', () => {
    const page = new Page().live(), key = page.key;
    expect(page.put(status('live', 'p1', 'av2')).key).not.toBe(key);
  });

  test('a new presentation after the end is loaded by itself, the old one is not played again', () => {
    const page = new Page().live().put(status('offline')).player('ended');
    expect([page.kind, page.key]).toEqual(['ended', null]);
    page.put(status('live'), LOW);
    expect([page.kind, page.key]).toEqual(['ended', null]);
    page.put(status('live', 'p2'));
    expect([page.kind, page.key]).toEqual(['starting', 'p2/av/low-latency/0']);
  });

  test('a player that misses the end is dropped once it stands still', () => {
    const page = new Page().live().put(status('offline')).wait(5000);
    expect(page.kind).toBe('live');
    page.put(STILL).wait(3000);
    expect([page.kind, page.key]).toEqual(['ended', null]);
  });
});

describe('trouble', () => {
  test('a picture that moves hides a hiccup of status requests', () => {
    const page = new Page().live().put(NO_ANSWER, NO_ANSWER);
    expect(page.kind).toBe('live');
    expect(page.put(NO_ANSWER).kind).toBe('lost');
  });

  test('the first answer after an outage replaces a player that stands', () => {
    const page = new Page().live(), key = page.key;
    page.put(STILL, NO_ANSWER).wait(10_000);
    expect(page.key).toBe(key);
    expect(page.put(status('live')).key).not.toBe(key);
  });

  test('but leaves one that plays', () => {
    const page = new Page().live(), key = page.key;
    expect(page.put(NO_ANSWER, status('live')).key).toBe(key);
  });

  test('failed players are replaced at growing distances, and never without an answer from the server', () => {
    const page = new Page().live(), gaps: number[] = [];
    for (let i = 0; i < 6; i++) {
      const before = page.key, sinceMs = page.nowMs;
      page.player('failed');
      while (page.key === before && page.nowMs - sinceMs < 20_000) page.wait(100);
      gaps.push(page.nowMs - sinceMs);
    }
    expect(gaps).toEqual([500, 1000, 2000, 4000, 8000, 8000]);
    const key = page.player('failed').put(NO_ANSWER).key;
    expect(page.wait(30_000).key).toBe(key);
  });

  test('failures are forgotten after a while of playing', () => {
    const page = new Page().live().player('failed').wait(500).player('playing').put(MOVING).wait(11_000);
    expect(page.model.failures).toBe(0);
  });

  test('a pause or a refused start is not a stuck player', () => {
    for (const input of [{ kind: 'paused', paused: true }, { kind: 'blocked', blocked: true }] as const) {
      const page = new Page().live().put(input, STILL), key = page.key;
      expect(page.wait(60_000).key).toBe(key);
    }
  });

  test('resuming after a pause gives the player its full time to move', () => {
    const page = new Page().live().put({ kind: 'paused', paused: true }, STILL).wait(60_000), key = page.key;
    page.put({ kind: 'paused', paused: false }).wait(4000);
    expect([page.kind, page.key]).toEqual(['buffering', key]);
    page.put({ kind: 'renew' });
    expect([page.kind, page.key === key]).toEqual(['starting', false]);
  });

  test('events of a player that is gone change nothing', () => {
    const page = new Page().live(), old = page.key!;
    page.put({ kind: 'renew' });
    expect(page.put({ kind: 'player', key: old, event: 'ended' }).kind).toBe('starting');
  });
});

describe('a second tab', () => {
  test('says so, and is promoted with a new player', () => {
    const page = new Page().put(status('live'), SEGMENTS);
    expect(view(page.model, 0).notice).toMatch(/Another tab/);
    const key = page.key;
    page.put(LOW);
    expect(page.key).not.toBe(key);
    expect(view(page.model, 0).notice).toBe('');
  });
});

test('the status is asked for sooner while something is about to change', () => {
  expect(pollMs(new Page().live().model, false)).toBe(2000);
  expect(pollMs(new Page().live().put(STILL).model, false)).toBe(1000);
  expect(pollMs(new Page().put(status('away')).model, false)).toBe(1000);
  expect(pollMs(new Page().put(status('offline'), NO_ANSWER).model, false)).toBe(1000);
  expect(pollMs(new Page().put(status('offline')).model, false)).toBe(2000);
  expect(pollMs(new Page().put(status('offline')).model, true)).toBe(5000);
  expect(pollMs(new Page().live().model, true)).toBe(2000);
});

describe('WebRTC and HLS', () => {
  const page = (choice: Choice = 'auto', webRtc = true, hls = true) => new Page(hls, webRtc, choice);
  const mode = ({ model }: Page) => wanted(model)?.mode ?? null;
  const GAVE_UP: Input = { kind: 'gave-up', why: 'UDP is blocked.' };
  const choose = (choice: Choice): Input => ({ kind: 'choice', choice });

  test('which one plays', () => {
    const check = (choice: Choice, webRtc: boolean, hls: boolean, want: string | null, insists = false) => {
      const opened = page(choice, webRtc, hls).put(status('live'));
      if (needsLease(opened.model)) opened.put(LOW);
      expect([mode(opened), wanted(opened.model)?.insists ?? false]).toEqual([want, insists]);
    };
    check('auto', true, true, 'webrtc');
    check('webrtc', true, true, 'webrtc', true);
    check('hls', true, true, 'low-latency');
    check('auto', false, true, 'low-latency');
    check('auto', true, false, 'webrtc', true);
    check('auto', false, false, null);
    check('hls', true, false, 'webrtc', true);
  });

  test('falls back to HLS by itself, says so, and tries again only when asked', () => {
    const viewer = page().put(status('live'));
    expect([needsLease(viewer.model), viewer.key]).toEqual([false, 'p1/webrtc/0']);
    viewer.put(GAVE_UP);
    expect([needsLease(viewer.model), viewer.key]).toEqual([true, null]);
    viewer.put(LOW).player('playing').put(MOVING);
    expect(viewer.key).toBe('p1/av/low-latency/0');
    expect(view(viewer.model, 0).notice).toMatch(/HLS.*WebRTC did not work.*UDP is blocked\./);
    expect(mayRetry(viewer.model)).toBe(true);
    viewer.wait(60_000).put(status('live', 'p2'));
    expect(mode(viewer)).toBe('low-latency');
    viewer.put(choose('auto'));
    expect([mode(viewer), view(viewer.model, 0).notice, mayRetry(viewer.model)]).toEqual(['webrtc', '', false]);
  });

  test('the viewer\'s choice holds at once', () => {
    const viewer = page().put(status('live')).player('playing').put(choose('hls'), LOW);
    expect([mode(viewer), view(viewer.model, 0).notice]).toEqual(['low-latency', '']);
    expect(mode(viewer.put(choose('webrtc')))).toBe('webrtc');
  });

  test('a session that heals itself is not replaced by the page', () => {
    const viewer = page().put(status('live')).player('playing').put(MOVING, STILL), key = viewer.key;
    viewer.wait(30_000).put(NO_ANSWER, status('live'), status('live', 'p1', 'av2'));
    expect([viewer.key, viewer.kind]).toEqual([key, 'buffering']);
  });

  test('a stream that ends is over for WebRTC, too', () => {
    const viewer = page().put(status('live')).player('playing').put(MOVING, STILL, status('offline')).wait(3000);
    expect([viewer.kind, viewer.key]).toEqual(['ended', null]);
    expect(viewer.put(status('live', 'p2')).key).toBe('p2/webrtc/0');
  });

  test('who insists is told what is wrong', () => {
    const viewer = page('webrtc').put(status('live'), { kind: 'trouble', why: 'UDP is blocked.' });
    expect(view(viewer.model, 0).notice).toMatch(/UDP is blocked\..*tried again/);
    expect(view(viewer.put({ kind: 'trouble', why: '' }).model, 0).notice).toBe('');
  });

  test('choices by name', () => expect([parseChoice('auto'), parseChoice('webrtc'), parseChoice('hls'), parseChoice('x'), parseChoice(null)]).toEqual(['auto', 'webrtc', 'hls', null, null]));
});
