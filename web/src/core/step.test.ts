import { expect, test } from 'vitest';
import { isWhole, type Listed } from './step';

const listed = (lengthS: number, targetS = 4): Listed => ({
  closed: [{ sn: 6, start: 20 - lengthS, end: 20 }],
  open: { sn: 7, start: 20, end: 20.6 },
  targetS,
});

test('a segment whose end is not told yet lasts as long as the one before it', () => {
  expect(isWhole(7, 20.2, listed(4))).toBe(false);
  expect(isWhole(7, 23.8, listed(4))).toBe(false);
  expect(isWhole(7, 24.0000002, listed(4))).toBe(true);
  // A source with a keyframe every 2.5 s: segments of 5 s, of a target of 6.
  expect(isWhole(7, 24, listed(5, 6))).toBe(false);
  expect(isWhole(7, 25, listed(5, 6))).toBe(true);
});

test('the first one lasts as long as the target', () => {
  const first: Listed = { closed: [], open: { sn: 7, start: 20, end: 20.6 }, targetS: 4 };
  expect(isWhole(7, 22, first)).toBe(false);
  expect(isWhole(7, 24, first)).toBe(true);
});

test('one whose end is told is whole there', () => {
  const next: Listed = { closed: [{ sn: 6, start: 16, end: 20 }, { sn: 7, start: 20, end: 23 }], open: { sn: 8, start: 23, end: 23 }, targetS: 4 };
  expect(isWhole(7, 22.8, next)).toBe(false);
  expect(isWhole(7, 23, next)).toBe(true);
  expect(isWhole(8, 23.2, next)).toBe(false);
  expect(isWhole(5, 16, next)).toBe(false);
});

test('an open one that stands among the closed is not taken for whole', () => {
  const between: Listed = { closed: [{ sn: 6, start: 16, end: 20 }, { sn: 7, start: 20, end: 20 }], open: null, targetS: 4 };
  expect(isWhole(7, 20.2, between)).toBe(false);
});
