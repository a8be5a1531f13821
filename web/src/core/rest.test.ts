import { describe, expect, test } from 'vitest';
import { ServerClock } from './clock';
import { plainPlaylist } from './playlist';
import { parseListing, parseStatus, streamOfPath } from './status';
import { delayWords, sinceWords } from './words';

describe('status.json and live.json', () => {
  test('a full answer', () => {
    const json = { stream: 'demo', state: 'live', presentation: 'x7', video: true, audio: false, tracks: '2', since: '2026-01-01T00:00:00Z', now: 1 };
    expect(parseStatus(json)).toEqual({ state: 'live', presentation: 'x7', tracks: '2', video: true, audio: false, nowMs: 1 });
  });

  test('anything else is no answer', () => {
    for (const json of [null, 'live', 3, [], {}, { state: 5 }]) expect(parseStatus(json)).toBeNull();
    expect(parseListing({ streams: 'none' })).toBeNull();
  });

  test('an unknown state is offline', () => expect(parseStatus({ state: 'rehearsal' })?.state).toBe('offline'));

  test('the list leaves out what it cannot name', () => {
    const listed = parseListing({ streams: [{ stream: 'a', state: 'live', since: '1970-01-01T00:00:01Z', height: 720, thumbnail: true }, { state: 'live' }, 4] });
    expect(listed).toEqual([{ stream: 'a', state: 'live', sinceMs: 1000, video: true, audio: true, width: null, height: 720, thumbnail: true }]);
  });

  test('the stream of an address', () => {
    const check = (path: string, want: string) => expect(streamOfPath(path)).toBe(want);
    check('/watch/demo', 'demo');
    check('/watch/demo/', 'demo');
    check('/watch/a%20b', 'a b');
    check('/watch/%E0%A4%A', '%E0%A4%A');
    check('/', '');
  });
});

describe('the server\'s clock', () => {
  test('believes the quickest answer', () => {
    const clock = new ServerClock();
    expect(clock.offsetMs).toBeNull();
    clock.push(1000, 1800, 6100);
    clock.push(3000, 3010, 8005);
    clock.push(5000, 5400, 10_500);
    expect(clock.offsetMs).toBe(5000);
  });

  test('a Date header serves until something better comes', () => {
    const clock = new ServerClock();
    clock.pushDate(1000, 1000, 'Thu, 01 Jan 1970 00:00:10 GMT');
    expect(clock.offsetMs).toBe(9500);
    clock.push(2000, 2020, 11_210);
    expect(clock.offsetMs).toBe(9200);
    clock.pushDate(3000, 3000, null);
    expect(clock.offsetMs).toBe(9200);
  });
});

test('whole segments only: the low-latency tags are gone, the rest is untouched', () => {
  const playlist = [
    '#EXTM3U', '#EXT-X-VERSION:9', '#EXT-X-TARGETDURATION:2',
    '#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12,PART-HOLD-BACK=0.6,HOLD-BACK=6.0',
    '#EXT-X-PART-INF:PART-TARGET=0.2', '#EXT-X-MEDIA-SEQUENCE:7', '#EXT-X-MAP:URI="init.mp4"',
    '#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z', '#EXT-X-PART:DURATION=0.2,URI="p1.m4s",INDEPENDENT=YES', '#EXTINF:2.0,', 's7.m4s',
    '#EXT-X-DISCONTINUITY', '#EXT-X-PRELOAD-HINT:TYPE=PART,URI="p2.m4s"', '#EXT-X-RENDITION-REPORT:URI="audio.m3u8",LAST-MSN=8', '',
  ];
  expect(plainPlaylist(playlist.join('\n')).split('\n')).toEqual([
    '#EXTM3U', '#EXT-X-VERSION:9', '#EXT-X-TARGETDURATION:2', '#EXT-X-SERVER-CONTROL:HOLD-BACK=6.0', '#EXT-X-MEDIA-SEQUENCE:7',
    '#EXT-X-MAP:URI="init.mp4"', '#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.000Z', '#EXTINF:2.0,', 's7.m4s', '#EXT-X-DISCONTINUITY', '',
  ]);
});

test('a playlist without HOLD-BACK still loses its blocking reload', () => {
  expect(plainPlaylist('#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6')).toBe('#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=NO');
});

test('numbers as words', () => {
  expect(delayWords(1030)).toBe('1.0 s behind the streamer');
  expect(delayWords(9970)).toBe('10 s behind the streamer');
  expect(delayWords(-20)).toBe('0.0 s behind the streamer');
  const since = (minutes: number) => sinceWords(0, minutes * 60_000);
  expect([since(0.5), since(1), since(59), since(60), since(47 * 60), since(72 * 60)])
    .toEqual(['just now', 'for 1 minute', 'for 59 minutes', 'for 1 hour', 'for 47 hours', 'for 3 days']);
});
