// The watch page's elements: shows what it is told and says which button was used. Decides nothing.
import type { Layer } from '../core/answer';
import { type Choice, parseChoice, type View, type ViewKind } from '../core/page';

function element<T extends HTMLElement>(id: string, type: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`watch.html has no ${id}`);
  return found;
}

const setText = (node: HTMLElement, text: string) => {
  if (node.textContent !== text) node.textContent = text; // an unchanged text is not announced again
};

const BADGES: Record<ViewKind, string> = {
  connecting: 'Connecting', offline: 'Offline', starting: 'Starting', live: 'Live', buffering: 'Live', paused: 'Paused',
  away: 'Away', ended: 'Ended', lost: 'No connection', blocked: 'Ready', unsupported: 'Not supported',
};

function layerName({ encodingId, width, height, active, framesPerSecond, bitsPerSecond }: Layer): string {
  const size = width === null || height === null ? encodingId : `${width} × ${height}`;
  const pace = framesPerSecond ? `, ${Math.round(framesPerSecond)} a second` : '';
  const cost = bitsPerSecond ? `, ${(bitsPerSecond / 1e6).toFixed(1)} Mbit/s` : '';
  return active ? size + pace + cost : `${size} (not sent now)`;
}

/** The pointer rests this long: the controls leave the picture. */
const IDLE_MS = 3000;

export interface Actions {
  togglePlay(): void;
  toggleMute(): void;
  setVolume(volume: number): void;
  choose(choice: Choice): void;
  /** Null: automatic. */
  chooseLayer(encodingId: string | null): void;
}

export class Screen {
  readonly video = element('video', HTMLVideoElement);
  private readonly stage = element('stage', HTMLElement);
  private readonly cover = element('cover', HTMLElement);
  private readonly message = element('message', HTMLElement);
  private readonly spinner = element('spinner', HTMLElement);
  private readonly start = element('start', HTMLButtonElement);
  private readonly unmute = element('unmute', HTMLButtonElement);
  private readonly play = element('play', HTMLButtonElement);
  private readonly mute = element('mute', HTMLButtonElement);
  private readonly full = element('full', HTMLButtonElement);
  private readonly volume = element('volume', HTMLInputElement);
  private readonly badge = element('badge', HTMLElement);
  private readonly delay = element('delay', HTMLElement);
  private readonly notice = element('notice', HTMLElement);
  private readonly noticeText = element('notice-text', HTMLElement);
  private readonly again = element('again', HTMLButtonElement);
  private readonly transport = element('transport', HTMLSelectElement);
  private readonly layerChoice = element('layer-choice', HTMLElement);
  private readonly layer = element('layer', HTMLSelectElement);
  private readonly details = element('details', HTMLDetailsElement);
  private readonly facts = element('facts', HTMLElement);
  readonly advice = element('advice', HTMLElement);
  private idleTimer = 0;

  constructor(private readonly stream: string, actions: Actions) {
    setText(element('title', HTMLElement), stream);
    this.video.title = stream;
    this.start.addEventListener('click', actions.togglePlay);
    this.play.addEventListener('click', actions.togglePlay);
    this.unmute.addEventListener('click', actions.toggleMute);
    this.mute.addEventListener('click', actions.toggleMute);
    this.volume.addEventListener('input', () => actions.setVolume(this.volume.valueAsNumber / 100));
    this.transport.addEventListener('change', () => actions.choose(parseChoice(this.transport.value) ?? 'auto'));
    this.again.addEventListener('click', () => actions.choose('auto'));
    this.layer.addEventListener('change', () => actions.chooseLayer(this.layer.value || null));
    this.full.addEventListener('click', () => this.toggleFull());
    this.video.addEventListener('dblclick', () => this.toggleFull());
    this.stage.addEventListener('keydown', (event) => this.pressed(event, actions));
    document.addEventListener('fullscreenchange', () => setText(this.full, document.fullscreenElement ? 'Leave full screen' : 'Full screen'));
    for (const event of ['pointermove', 'pointerdown', 'focusin'] as const) this.stage.addEventListener(event, () => this.wake());
    this.full.hidden = !document.fullscreenEnabled && !('webkitEnterFullscreen' in this.video);
    this.wake();
  }

  show(view: View, video: HTMLVideoElement): void {
    setText(this.message, view.message);
    this.cover.classList.toggle('open', !view.covers);
    this.spinner.hidden = !view.busy;
    this.start.hidden = view.kind !== 'blocked';
    setText(this.badge, BADGES[view.kind]);
    this.badge.classList.toggle('live', view.kind === 'live' || view.kind === 'buffering');
    setText(this.noticeText, view.notice);
    this.notice.hidden = view.notice === '';
    setText(this.play, video.paused ? 'Play' : 'Pause');
    setText(this.mute, video.muted ? 'Unmute' : 'Mute');
    this.unmute.hidden = !(video.muted && view.kind === 'live');
    const title = view.kind === 'live' ? `● ${this.stream} – CodeCast` : `${this.stream}: ${BADGES[view.kind].toLowerCase()} – CodeCast`;
    if (document.title !== title) document.title = title;
  }

  showChoice(choice: Choice, webRtc: boolean, mayRetry: boolean): void {
    if (this.transport.value !== choice) this.transport.value = choice;
    this.transport.options[1]!.disabled = !webRtc;
    this.again.hidden = !mayRetry;
  }

  /** The menu is there only where there is something to choose. */
  showLayers(layers: readonly Layer[], chosen: string | null): void {
    this.layerChoice.hidden = layers.length < 2;
    const wanted = [['', 'Automatic'], ...layers.map((one) => [one.encodingId, layerName(one)])];
    const shown = [...this.layer.options].map(({ value, text }) => [value, text]);
    if (String(wanted) !== String(shown)) this.layer.replaceChildren(...wanted.map(([value, text]) => new Option(text, value)));
    if (this.layer.value !== (chosen ?? '')) this.layer.value = chosen ?? '';
  }

  showVolume(volume: number): void {
    this.volume.valueAsNumber = Math.round(volume * 100);
  }

  showDelay(words: string): void {
    setText(this.delay, words);
  }

  /** Pairs of a name and a value; drawn only while the panel is open. */
  showFacts(facts: readonly (readonly [string, string])[]): void {
    if (!this.details.open) return;
    const wanted = facts.flatMap(([name, value]) => [['dt', name], ['dd', value]] as const);
    while (this.facts.children.length > wanted.length) this.facts.lastElementChild?.remove();
    wanted.forEach(([tag, text], i) => {
      const node = this.facts.children[i] ?? this.facts.appendChild(document.createElement(tag));
      setText(node as HTMLElement, text);
    });
  }

  get showsDetails(): boolean {
    return this.details.open;
  }

  private toggleFull(): void {
    const video = this.video as HTMLVideoElement & { webkitEnterFullscreen?: () => void };
    if (document.fullscreenElement) void document.exitFullscreen();
    else if (document.fullscreenEnabled) void this.stage.requestFullscreen();
    else video.webkitEnterFullscreen?.(); // iPhone: only the video itself can
  }

  private pressed(event: KeyboardEvent, actions: Actions): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === 'k') actions.togglePlay();
    else if (key === 'm') actions.toggleMute();
    else if (key === 'f') this.toggleFull();
    else return;
    event.preventDefault();
  }

  private wake(): void {
    this.stage.classList.remove('idle');
    clearTimeout(this.idleTimer);
    this.idleTimer = window.setTimeout(() => this.stage.classList.toggle('idle', !this.video.paused), IDLE_MS);
  }
}
