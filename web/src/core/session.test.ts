import { describe, expect, test } from 'vitest';
import type { Refusal } from './answer';
import { type IceState, initial, type Input, isFlowing, type Session, type State, stateOf, step, wanted } from './session';
import type { StreamState } from './status';

const refusal = (status: number, retryAfterMs: number | null = null, detail = ''): Refusal => ({ status, detail, retryAfterMs });

/** A viewer in virtual time. */
class Viewer {
  nowMs = 0;
  session: Session;
  private bytes = 0;

  constructor(insists = false) {
    this.session = initial(insists, 0);
    this.put({ kind: 'tick' });
  }

  put(...inputs: Input[]): this {
    for (const input of inputs) this.session = step(this.session, input, this.nowMs);
    return this;
  }

  get attempt(): number {
    return this.session.attempt;
  }

  ice(state: IceState): this {
    return this.put({ kind: 'ice', attempt: this.attempt, state });
  }

  refused(...args: Parameters<typeof refusal>): this {
    return this.put({ kind: 'refused', attempt: this.attempt, refusal: refusal(...args) });
  }

  event(kind: 'active' | 'inactive'): this {
    return this.put({ kind, attempt: this.attempt });
  }

  ended(reason: string): this {
    return this.put({ kind: 'ended', attempt: this.attempt, reason });
  }

  server(state: StreamState, reachable = true): this {
    return this.put({ kind: 'server', state, reachable });
  }

  media(): this {
    this.bytes += 1000;
    return this.put({ kind: 'media', attempt: this.attempt, bytes: this.bytes, decoded: true });
  }

  playing(): this {
    return this.ice('connected').media();
  }

  /** Time passes in ticks of 100 ms. */
  wait(ms: number): this {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs;) {
      this.nowMs += 100;
      this.put({ kind: 'tick' });
    }
    return this;
  }

  /** Time passes and media with it. */
  play(ms: number): this {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs;) this.wait(100).media();
    return this;
  }

  /** How long until another session is wanted. */
  untilNext(maxMs = 30_000): number {
    const attempt = this.attempt, sinceMs = this.nowMs;
    while (this.attempt === attempt && this.nowMs - sinceMs < maxMs) this.wait(100);
    return this.nowMs - sinceMs;
  }

  get state(): State {
    return stateOf(this.session);
  }
}

describe('starting', () => {
  test('offers at once and plays with the first picture', () => {
    const viewer = new Viewer();
    expect([viewer.state, wanted(viewer.session)]).toEqual(['connecting', { attempt: 1, restarts: 0, layer: null }]);
    viewer.wait(300).playing();
    expect([viewer.state, isFlowing(viewer.session, viewer.nowMs)]).toEqual(['playing', true]);
  });

  test('without a picture for four seconds it gives up, and says why', () => {
    const check = (prepare: (viewer: Viewer) => void, why: RegExp) => {
      const viewer = new Viewer();
      prepare(viewer);
      expect(viewer.wait(3900).state).not.toBe('gave-up');
      viewer.wait(200);
      expect([viewer.state, wanted(viewer.session)]).toEqual(['gave-up', null]);
      expect(viewer.session.trouble).toMatch(why);
    };
    check(() => {}, /UDP/);
    check((viewer) => viewer.ice('connected'), /no picture arrived/);
    check((viewer) => viewer.refused(404, 1000), /no picture|UDP|no WebRTC session/);
  });

  test('what cannot be mended is given up at once', () => {
    for (const status of [400, 403, 405, 406, 415, 501]) expect(new Viewer().refused(status).state).toBe('gave-up');
    const viewer = new Viewer().put({ kind: 'unusable', attempt: 1, why: 'No H.264.' });
    expect([viewer.state, viewer.session.trouble]).toEqual(['gave-up', 'No H.264.']);
    expect(new Viewer().refused(503, 5000, 'No transcoder here.').session.trouble).toBe('No transcoder here.');
  });

  test('a server that is starting is asked again when it says', () => {
    const viewer = new Viewer().refused(503, 1000);
    expect([viewer.state, wanted(viewer.session)]).toEqual(['connecting', null]);
    expect(viewer.untilNext()).toBe(1000);
    expect(viewer.session.failures).toBe(0);
  });

  test('nothing is counted while the stream is not live or the server not there', () => {
    for (const [state, reachable] of [['away', true], ['offline', true], ['live', false]] as const) {
      const viewer = new Viewer().refused(404).server(state, reachable).wait(60_000);
      expect([viewer.attempt, viewer.state === 'gave-up']).toEqual([1, false]);
      expect(viewer.server('live').wait(1000).attempt).toBe(2);
    }
  });

  test('who insists is never left without another try', () => {
    const viewer = new Viewer(true), gaps: number[] = [];
    for (const status of [500, 500, 500, 500, 500, 500, 405]) {
      viewer.refused(status);
      gaps.push(viewer.untilNext());
    }
    expect(gaps).toEqual([500, 1000, 2000, 4000, 8000, 8000, 8000]);
    expect(viewer.session.trouble).not.toBe('');
    expect(viewer.playing().session.trouble).toBe('');
  });
});

describe('trouble', () => {
  test('a lost path is restarted first, then replaced', () => {
    const viewer = new Viewer().playing().play(1000).ice('disconnected').wait(1900);
    expect([viewer.state, viewer.session.restarts]).toEqual(['playing', 0]);
    viewer.wait(100);
    expect([viewer.state, viewer.session.restarts, viewer.attempt]).toEqual(['reconnecting', 1, 1]);
    expect(viewer.untilNext()).toBe(3100); // and a tick
    expect(viewer.attempt).toBe(2);
  });

  test('a restart that works keeps the session', () => {
    const viewer = new Viewer().playing().ice('failed').wait(500).ice('checking').ice('connected').wait(2000).play(20_000);
    expect([viewer.state, viewer.attempt, viewer.session.restarts]).toEqual(['playing', 1, 1]);
  });

  test('media that arrives after a restart proves the path', () => {
    const viewer = new Viewer().playing().ice('failed').wait(500).play(10_000);
    expect([viewer.state, viewer.attempt, viewer.session.restarts]).toEqual(['playing', 1, 1]);
  });

  test('a refused restart is not waited for', () => {
    const viewer = new Viewer().playing().ice('failed').put({ kind: 'restart-refused', attempt: 1 });
    expect(viewer.wait(100).attempt).toBe(2);
  });

  test('a path that heals by itself is left alone', () => {
    const viewer = new Viewer().playing().ice('disconnected').wait(1500).ice('connected').play(5000);
    expect([viewer.attempt, viewer.session.restarts]).toEqual([1, 0]);
  });

  test('silence means another session', () => {
    const viewer = new Viewer().playing().play(3000);
    expect(viewer.untilNext()).toBe(2600); // and a tick
    expect(viewer.state).toBe('reconnecting');
  });

  test('but not while the publisher is away', () => {
    const viewer = new Viewer().playing().event('inactive').wait(50_000);
    expect([viewer.state, viewer.attempt]).toEqual(['away', 1]);
    viewer.event('active').wait(2400);
    expect(viewer.attempt).toBe(1);
    expect(viewer.media().wait(1000).state).toBe('playing');
  });

  test('the status alone tells of an absence, too', () => {
    const viewer = new Viewer().playing().server('away').wait(30_000);
    expect([viewer.state, viewer.attempt]).toEqual(['away', 1]);
    viewer.server('live').wait(2000).media();
    expect([viewer.state, viewer.attempt]).toEqual(['playing', 1]);
  });

  test('a stale status does not undo an event', () => {
    expect(new Viewer().playing().event('inactive').server('live').state).toBe('away');
  });

  test('after an outage a session that is silent is replaced at once', () => {
    const viewer = new Viewer().playing().server('live', false).wait(20_000);
    expect(viewer.attempt).toBe(1);
    expect(viewer.server('live').wait(100).attempt).toBe(2);
  });

  test('failures come at growing distances, then it gives up; a calm while forgives them', () => {
    const viewer = new Viewer(), gaps: number[] = [];
    while (viewer.state !== 'gave-up') {
      viewer.playing().play(200);
      gaps.push(viewer.untilNext(20_000));
    }
    expect(gaps.slice(0, 4)).toEqual([2600, 3500, 4500, 6500]);
    expect(gaps.length).toBe(5);
    const calm = new Viewer().playing();
    calm.untilNext();
    expect(calm.playing().play(11_000).session.failures).toBe(0);
  });
});

describe('the end', () => {
  test('another codec means another offer within a second', () => {
    const viewer = new Viewer().playing().play(5000).ended('codec-changed');
    expect([viewer.attempt, wanted(viewer.session)?.attempt]).toEqual([2, 2]);
  });

  test('the stream has ended: nothing is offered until the server says live again', () => {
    const viewer = new Viewer().playing().ended('stream-ended').server('offline').wait(60_000);
    expect([viewer.state, wanted(viewer.session)]).toEqual(['ended', null]);
    expect(viewer.server('live').wait(100).attempt).toBe(2);
  });

  test('any other end is tried again soon', () => expect(new Viewer().playing().ended('drained').untilNext()).toBe(500));
});

test('layers: only one that is offered is chosen', () => {
  const layer = (encodingId: string) => ({ encodingId, width: null, height: null, active: true });
  const viewer = new Viewer().playing().put({ kind: 'layers', attempt: 1, layers: [layer('l'), layer('h')] }, { kind: 'layer', encodingId: 'h' });
  expect(wanted(viewer.session)?.layer).toBe('h');
  expect(wanted(viewer.put({ kind: 'layer', encodingId: 'x' }).session)?.layer).toBeNull();
  viewer.put({ kind: 'layer', encodingId: 'h' }, { kind: 'layers', attempt: 1, layers: [layer('l')] });
  expect(wanted(viewer.session)?.layer).toBeNull();
});

test('the chosen layer is asked for again in the next session, once that offers it', () => {
  const layers = [{ encodingId: 'h', width: null, height: null, active: true }];
  const viewer = new Viewer().playing().put({ kind: 'layers', attempt: 1, layers }, { kind: 'layer', encodingId: 'h' }).ended('codec-changed');
  expect(wanted(viewer.session)?.layer).toBeNull();
  expect(wanted(viewer.put({ kind: 'layers', attempt: 2, layers }).session)?.layer).toBe('h');
});

test('what an abandoned session says changes nothing', () => {
  const viewer = new Viewer().playing().ended('codec-changed'), { session } = viewer;
  viewer.put({ kind: 'ended', attempt: 1, reason: 'stream-ended' }, { kind: 'ice', attempt: 1, state: 'failed' });
  expect(viewer.session).toEqual(session);
});
