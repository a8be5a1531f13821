// What the server advises a streamer: the answer of `advice.json`, parsed once at the rim.

export interface Advice {
  /** What was seen: sentences of the server, the strongest first. */
  text: string;
  /** What to change in OBS Studio, by the names of its settings. */
  change: string;
}

/** The server knows some fifteen kinds, each there once: whoever answers with more is no server of ours. */
const ADVICE_MAX = 20;
const SENTENCE_MAX = 500;

const sentence = (value: unknown): string => (typeof value === 'string' ? value.slice(0, SENTENCE_MAX) : '');

/** Null when this is not an answer of ours. */
export function parseAdvice(json: unknown): Advice[] | null {
  const list = typeof json === 'object' && json !== null && 'advice' in json ? json.advice : null;
  if (!Array.isArray(list)) return null;
  return list.slice(0, ADVICE_MAX).filter((one) => typeof one === 'object' && one !== null)
    .map((one: Record<string, unknown>) => ({ text: sentence(one.text), change: sentence(one.change) }))
    .filter(({ text }) => text !== '');
}

/** The settings of OBS mean nothing to who publishes from a browser. */
export const browserWords = ({ text }: Advice): string => text;
export const obsWords = ({ text, change }: Advice): string => (change === '' ? text : `${text} In OBS: ${change}`);
