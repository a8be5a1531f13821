// A list of advice: asked for while it is wanted, shown as plain text.
import { type Advice, parseAdvice } from '../core/advice';
import { ask } from './fetch';

/** What is measured changes over many seconds. */
const ASK_MS = 5000;

/** `beat` it often: it asks by itself every few seconds, and keeps its list through an answer that fails. */
export class AdviceList {
  private askedMs = -Infinity;
  private asking = false;

  /** `none` is said where the server has nothing to advise; empty, the list is then hidden. */
  constructor(private readonly list: HTMLElement, private readonly words: (advice: Advice) => string, private readonly none: string) {}

  /** `stream` is null while there is nothing to ask for. */
  async beat(stream: string | null, nowMs: number): Promise<void> {
    if (stream === null) return this.show([]);
    if (this.asking || nowMs - this.askedMs < ASK_MS) return;
    this.askedMs = nowMs;
    this.asking = true;
    const answer = await ask(`/live/${encodeURIComponent(stream)}/advice.json`);
    this.asking = false;
    const advice = answer === null ? null : parseAdvice(answer.json);
    if (advice === null) return;
    this.show(advice.length > 0 ? advice.map(this.words) : this.none === '' ? [] : [this.none]);
  }

  private show(lines: readonly string[]): void {
    this.list.hidden = lines.length === 0;
    const shown = [...this.list.children].map((line) => line.textContent);
    if (String(shown) === String(lines)) return; // an unchanged list is not announced again
    this.list.replaceChildren(...lines.map((line) => {
      const node = document.createElement('li');
      node.textContent = line;
      return node;
    }));
  }
}
