import { expect, test } from 'vitest';
import { mediaSeconds } from './playlist';

test('media is counted from the last gap on', () => {
  const gap = '#EXT-X-GAP\n#EXTINF:4.00000,\nsegment-1.m4s\n';
  const whole = '#EXT-X-PART:DURATION=2.00000,URI="a",INDEPENDENT=YES\n#EXT-X-PART:DURATION=2.00000,URI="b"\n#EXTINF:4.00000,\nsegment-2.m4s\n';
  const open = '#EXT-X-PART:DURATION=0.20000,URI="c",INDEPENDENT=YES\n#EXT-X-PART:DURATION=0.20000,URI="d"\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI="e"\n';
  const seconds = (text: string) => Number(mediaSeconds(`#EXTM3U\n${text}`).toFixed(3));
  expect(seconds('')).toBe(0);
  expect(seconds(gap)).toBe(0);
  expect(seconds(gap + open)).toBe(0);
  expect(seconds(gap + whole + open)).toBe(4.4);
  expect(seconds(whole + gap + open)).toBe(0);
  expect(seconds(whole + whole)).toBe(8);
});
