import { expect, test } from 'vitest';
import { RateController, rungExtra, StallAllowance } from './rate';

/** A player in virtual time: the distance to the edge shrinks by what the rate exceeds one. `noise` in seconds. */
function run(startLatency: number, target: number, seconds: number, noise = 0, buffer = 1) {
  const controller = new RateController(), rates: number[] = [];
  let latency = startLatency, lowest = latency;
  for (let i = 0; i < seconds * 10; i++) {
    const seen = latency + noise * Math.sin(i * 2.1);
    const rate = controller.next({ latency: seen, target, buffer });
    latency -= (rate - 1) * 0.1;
    lowest = Math.min(lowest, latency);
    rates.push(rate);
  }
  return { latency, lowest, rates, changes: rates.filter((rate, i) => i > 0 && rate !== rates[i - 1]).length };
}

test('closes a distance without overshoot and then rests at one', () => {
  const { latency, lowest, rates } = run(1.3, 0.6, 20);
  expect(Math.max(...rates)).toBe(1.1);
  expect(latency).toBeCloseTo(0.6, 1);
  expect(lowest).toBeGreaterThan(0.58);
  expect(rates.at(-1)).toBe(1);
});

test('slows down when too near the edge, by a twentieth at most', () => {
  const { latency, rates } = run(0.3, 0.6, 20);
  expect(Math.min(...rates)).toBe(0.95);
  expect(latency).toBeCloseTo(0.6, 1);
});

test('does not flap on the jitter of part arrivals', () => {
  expect(run(0.6, 0.6, 60, 0.05).changes).toBe(0);
  expect(run(0.63, 0.6, 60, 0.03).changes).toBe(0);
});

test('never hurries with little in hand', () => {
  expect(Math.max(...run(1.2, 0.6, 5, 0, 0.1).rates)).toBe(1);
});

test('a seek is answered at once, not smoothed', () => {
  const controller = new RateController();
  for (let i = 0; i < 20; i++) controller.next({ latency: 3, target: 0.6, buffer: 2 });
  expect(controller.next({ latency: 0.6, target: 0.6, buffer: 0.5 })).toBe(1);
});

test('stalls widen the target, calm gives it back', () => {
  const allowance = new StallAllowance(), at = (seconds: number) => Math.round(allowance.seconds(seconds * 1000) * 10) / 10;
  expect(at(0)).toBe(0);
  allowance.stalled(0);
  allowance.stalled(1000);
  expect(at(2)).toBe(0.2);
  expect(at(30)).toBe(0.2);
  expect(at(31)).toBe(0.1);
  expect(at(61)).toBe(0);
  for (let i = 0; i < 50; i++) allowance.stalled(100_000);
  expect(at(100)).toBe(1);
});

test('only a thin rung of a ladder adds to the target', () => {
  expect(rungExtra(400_000, 3)).toBe(1);
  expect(rungExtra(400_000, 1)).toBe(0);
  expect(rungExtra(3_000_000, 3)).toBe(0);
});
