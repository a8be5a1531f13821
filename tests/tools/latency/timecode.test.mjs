// The time code as a format: other painters (the load generator's, in Rust) must paint these very cells.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COLS, age, cells, read, summary } from './timecode.mjs';

// CRC-8: polynomial 0x07, initial value 0xff, over the four bytes of the time, highest first.
const VECTORS = [
  ['..........', '..........', '..........', '..##.#...#'],
  ['#.###..#.#', '..#.##...#', '.#..#..#.#', '.#.##..#..'],
];

const drawn = (ms) => cells(ms).map((on) => (on ? '#' : '.')).join('').match(/.{10}/g);
const luma = (painted, noise = 0) => (column, row) => (painted[row * COLS + column] ? 235 - noise : 16 + noise);

test('cells are the low 32 bits of the milliseconds and their CRC-8, row by row', () => {
  assert.deepEqual(drawn(0), VECTORS[0]);
  assert.deepEqual(drawn(1_764_045_296_789), VECTORS[1]);
});

test('what is painted is read, also from a poor picture', () => {
  for (const ms of [0, 1, 2 ** 31, 2 ** 32 - 1, 1_764_045_296_789]) {
    assert.equal(read(luma(cells(ms))), ms % 2 ** 32);
    assert.equal(read(luma(cells(ms), 100)), ms % 2 ** 32);
  }
});

test('any one damaged cell is noticed', () => {
  for (let i = 0; i < 40; i++) {
    const painted = cells(1_764_045_296_789);
    painted[i] = !painted[i];
    assert.equal(read(luma(painted)), null);
  }
});

test('an age counts across the wrap of 32 bits', () => {
  assert.equal(age(2 ** 32 - 100, 2 ** 32 * 7 + 150), 250);
  assert.equal(age(500, 2 ** 32 + 400), -100);
});

test('a summary of nothing says so', () => {
  assert.deepEqual(summary([]), { n: 0 });
  assert.equal(summary([3, 1, 2]).p50, 2);
});
