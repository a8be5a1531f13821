import { describe, expect, test } from 'vitest';
import type { Refusal } from './answer';
import type { IceState } from './session';
import { encodings, initial, type Input, isStreamName, type Source, type Studio, step, stateOf, view, wanted } from './studio';

/** A publisher in virtual time. */
class Publisher {
  nowMs = 0;
  studio: Studio = initial();

  put(...inputs: Input[]): this {
    for (const input of inputs) this.studio = step(this.studio, input, this.nowMs);
    return this;
  }

  start(): this {
    return this.put({ kind: 'captured', sources: { picture: true, sound: true } }, { kind: 'start' });
  }

  ice(state: IceState): this {
    return this.put({ kind: 'ice', attempt: this.studio.attempt, state });
  }

  sent(frames: number, packets = frames): this {
    return this.put({ kind: 'sent', attempt: this.studio.attempt, frames, packets });
  }

  refused(status: number, detail = '', retryAfterMs: number | null = null): this {
    const refusal: Refusal = { status, detail, retryAfterMs };
    return this.put({ kind: 'refused', attempt: this.studio.attempt, refusal });
  }

  live(): this {
    return this.start().ice('connected').sent(10);
  }

  wait(ms: number): this {
    for (const endMs = this.nowMs + ms; this.nowMs < endMs;) {
      this.nowMs += 100;
      this.put({ kind: 'tick' });
    }
    return this;
  }

  untilNext(): number {
    const { attempt } = this.studio, sinceMs = this.nowMs;
    while (this.studio.attempt === attempt && this.nowMs - sinceMs < 60_000) this.wait(100);
    return this.nowMs - sinceMs;
  }

  get state() {
    return stateOf(this.studio);
  }

  get error(): string {
    return view(this.studio, this.nowMs).error;
  }
}

test('from nothing to live and back', () => {
  const publisher = new Publisher();
  expect(publisher.state).toBe('idle');
  expect(publisher.put({ kind: 'start' }).state).toBe('idle'); // nothing to send
  expect(publisher.put({ kind: 'captured', sources: { picture: true, sound: false } }).state).toBe('ready');
  expect([publisher.put({ kind: 'start' }).state, wanted(publisher.studio)]).toEqual(['connecting', 1]);
  expect(publisher.ice('connected').state).toBe('live');
  expect([publisher.put({ kind: 'stop' }).state, wanted(publisher.studio)]).toEqual(['ready', null]);
});

describe('refusals in plain words', () => {
  const check = (status: number, words: RegExp, state: string) => test(String(status), () => {
    const publisher = new Publisher().start().refused(status, 'The server says so.');
    expect(publisher.error).toMatch(words);
    expect(publisher.error).toMatch(/The server says so\.$/);
    expect(publisher.state).toBe(state);
  });
  check(401, /key is wrong/, 'failed');
  check(403, /key is wrong/, 'failed');
  check(404, /no place/, 'failed');
  check(405, /takes no publishers/, 'failed');
  check(406, /codecs/, 'failed');
  check(409, /already live/, 'failed');
  check(422, /refused \(422\)/, 'failed');
  check(503, /right now/, 'reconnecting');
  check(0, /does not answer/, 'reconnecting');
});

describe('capture errors in plain words', () => {
  const check = (source: Source, name: string, words: RegExp) => test(`${source} ${name}`, () => {
    const publisher = new Publisher().put({ kind: 'not-captured', source, name });
    expect([publisher.state, words.test(publisher.error)]).toEqual(['failed', true]);
  });
  check('screen', 'NotAllowedError', /No screen was chosen/);
  check('camera', 'NotAllowedError', /may not use the camera/);
  check('microphone', 'NotFoundError', /No microphone/);
  check('camera', 'NotReadableError', /Another program/);
  check('camera', 'OverconstrainedError', /no longer there/);
  check('screen', 'insecure', /HTTPS/);
  check('screen', 'AbortError', /AbortError/);
});

describe('coming back by itself', () => {
  test('a lost connection is answered at once the first time, then at growing distances', () => {
    const publisher = new Publisher().live().ice('failed');
    expect(publisher.state).toBe('reconnecting');
    const gaps = [publisher.untilNext()];
    for (let i = 0; i < 4; i++) gaps.push(publisher.ice('failed').untilNext());
    expect(gaps).toEqual([100, 2000, 4000, 8000, 10_000]);
  });

  test('a short disconnection is borne', () => {
    const publisher = new Publisher().live().ice('disconnected').wait(2900);
    expect(publisher.state).toBe('live');
    expect(publisher.wait(200).studio.attempt).toBe(2);
  });

  test('our own old session may still hold the name', () => {
    const publisher = new Publisher().live().ice('failed').wait(100).refused(409);
    expect([publisher.state, publisher.untilNext()]).toEqual(['reconnecting', 2000]);
  });

  test('the wait that the server names is kept', () => expect(new Publisher().start().refused(503, '', 5000).untilNext()).toBe(5000));

  test('UDP that is blocked is named, and tried again', () => {
    const publisher = new Publisher().start().wait(10_000);
    expect([publisher.state, /UDP/.test(publisher.error)]).toEqual(['reconnecting', true]);
    expect(publisher.wait(1000).ice('connected').error).toBe('');
  });

  test('a calm while forgives', () => {
    expect(new Publisher().live().ice('failed').wait(100).ice('connected').sent(1).wait(11_000).studio.failures).toBe(0);
  });
});

test('an encoder that gives nothing is named', () => {
  expect(new Publisher().live().sent(0, 0).wait(5000).error).toMatch(/encoder/);
  expect(new Publisher().live().sent(30).wait(5000).error).toBe('');
});

test('a source that ends ends publishing', () => {
  const publisher = new Publisher().live().put({ kind: 'source-ended', source: 'screen' });
  expect([wanted(publisher.studio), publisher.state]).toEqual([null, 'failed']);
  expect(publisher.error).toMatch(/Sharing the screen has ended/);
});

test('layers share the bitrate, the largest last', () => {
  expect(encodings(1, 1000)).toEqual([{ maxBitrate: 1000 }]);
  expect(encodings(2, 1000).map(({ rid, scaleResolutionDownBy }) => [rid, scaleResolutionDownBy])).toEqual([['l', 2], ['h', 1]]);
  expect(encodings(3, 1000)).toEqual([
    { rid: 'l', scaleResolutionDownBy: 4, maxBitrate: 80 },
    { rid: 'm', scaleResolutionDownBy: 2, maxBitrate: 220 },
    { rid: 'h', scaleResolutionDownBy: 1, maxBitrate: 700 },
  ]);
});

test('names as the server has them', () => {
  for (const [name, valid] of [['demo', true], ['a-b_9', true], ['', false], ['a b', false], ['x'.repeat(65), false]] as const) expect(isStreamName(name)).toBe(valid);
});
