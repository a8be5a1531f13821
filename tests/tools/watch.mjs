// Opens our watch page in Chromium and tells what it shows: a line of JSON at each change of state or mode, until the
// standard input ends. A line `tab` on the input opens the page in one more tab of the same browser.
//
//   node tests/tools/watch.mjs URL
//
// Lines: {"tab": 0, "state": "live", "mode": "low-latency", "frames": 12, "players": 1, "text": "what a viewer reads"}
import { createInterface } from 'node:readline';
import { stage } from './latency/stage.mjs';

const [url] = process.argv.slice(2);
const GLANCE_MS = 50;

const { open, close } = await stage();
const tabs = [await open('page', url)];
const told = [];

/** What the page says of itself and shows; null while it is loading. */
const look = (page) => page.evaluate(() => window.codecast && ({
  state: codecast.state, mode: codecast.mode, players: codecast.players, errors: codecast.hlsErrors, loaded: performance.timeOrigin,
  frames: document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames ?? 0, text: document.body.innerText,
})).catch(() => null);

let open_ = true;
const input = createInterface({ input: process.stdin });
input.on('line', async (line) => { if (line === 'tab') { const page = await tabs[0].context().newPage(); await page.goto(url); tabs.push(page); } });
input.on('close', () => { open_ = false; });

while (open_) {
  for (const [tab, page] of tabs.entries()) {
    const seen = await look(page);
    const playing = seen && (seen.frames > 10 ? 'playing' : 'still');
    const key = seen && `${seen.state} ${seen.mode} ${playing} ${Math.floor(seen.frames / 30)}`;
    if (seen && key !== told[tab]) { told[tab] = key; console.log(JSON.stringify({ tab, ...seen })); }
  }
  await new Promise((resolve) => setTimeout(resolve, GLANCE_MS));
}
await close();
process.exit(0);
