import { describe, expect, test } from 'vitest';
import { browserWords, obsWords, parseAdvice } from './advice';

describe('advice.json', () => {
  test('the order is the server’s, the strongest first', () => {
    const one = (text: string) => ({ code: 'a', severity: 'hint', text, change: 'Settings, Audio.' });
    const parsed = parseAdvice({ stream: 'demo', advice: [one('It is so.'), one('It is <b>.')], now: 1 });
    expect(parsed?.map(browserWords)).toEqual(['It is so.', 'It is <b>.']);
    expect(parsed?.map(obsWords)[0]).toBe('It is so. In OBS: Settings, Audio.');
    expect(obsWords({ text: 'It is so.', change: '' })).toBe('It is so.');
  });

  test('no advice is an answer, too', () => expect(parseAdvice({ advice: [] })).toEqual([]));

  test('anything else is none', () => {
    for (const json of [null, 'advice', 3, [], {}, { advice: 'none' }, { advice: null }]) expect(parseAdvice(json)).toBeNull();
  });

  test('what has no sentence is left out, and nothing grows without end', () => {
    expect(parseAdvice({ advice: [null, 4, {}, { text: 5 }, { text: '' }, { text: 'Seen.', change: 9 }] })).toEqual([{ text: 'Seen.', change: '' }]);
    const many = parseAdvice({ advice: Array.from({ length: 500 }, () => ({ text: 'x'.repeat(9000) })) });
    expect([many?.length, many?.[0]?.text.length]).toEqual([20, 500]);
  });
});
