import { expect, test } from 'vitest';
import { BEAT_MS, type Lease, LEASE_MS, parseLease, sharesConnections, turn } from './lease';

/** Tabs sharing one storage in virtual time. */
class Browser {
  nowMs = 1_000_000;
  stored: Lease | null = null;

  beat(tab: string): boolean {
    const { holds, write } = turn(this.stored, tab, this.nowMs);
    if (write !== null) this.stored = write;
    return holds;
  }

  /** One heartbeat of each tab, then a second passes. */
  round(...tabs: string[]): string[] {
    const holders = tabs.filter((tab) => this.beat(tab));
    this.nowMs += BEAT_MS;
    return holders;
  }
}

test('one tab holds, the second takes over when the first is gone', () => {
  const browser = new Browser();
  browser.round('a', 'b');
  for (let i = 0; i < 10; i++) expect(browser.round('a', 'b')).toEqual(['a']);
  let rounds = 0;
  while (browser.round('b').length === 0 && rounds < 20) rounds += 1;
  expect(rounds * BEAT_MS).toBeLessThanOrEqual(LEASE_MS + BEAT_MS);
});

test('a lease given back is free at once', () => {
  const browser = new Browser();
  browser.round('a');
  browser.stored = null;
  browser.beat('b');
  expect(browser.beat('b')).toBe(true);
});

test('of two claims written at once only the last counts', () => {
  const browser = new Browser();
  const a = turn(null, 'a', browser.nowMs), b = turn(null, 'b', browser.nowMs);
  expect([a.holds, b.holds]).toEqual([false, false]);
  browser.stored = b.write;
  expect(browser.round('a', 'b')).toEqual(['b']);
});

test('a lease from a clock that was set back is nobody\'s', () => {
  expect(turn({ owner: 'a', untilMs: 9e12 }, 'b', 1_000_000).write?.owner).toBe('b');
});

test('what storage holds is parsed with suspicion', () => {
  const check = (text: string | null, want: Lease | null) => expect(parseLease(text)).toEqual(want);
  check('{"owner":"a","untilMs":5}', { owner: 'a', untilMs: 5 });
  check(null, null);
  check('', null);
  check('{', null);
  check('7', null);
  check('{"owner":1,"untilMs":5}', null);
});

test('HTTP/2 and 3 have streams enough for many players', () => {
  expect(['http/1.1', 'http/1.0', '', 'h2', 'h3'].map(sharesConnections)).toEqual([true, true, true, false, false]);
});
