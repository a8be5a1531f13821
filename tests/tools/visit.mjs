// Keeps pages open while a test does things to the stream, and says four times a second what each shows: one line of
// JSON a page.
//
//   node tests/tools/visit.mjs FILE PLAYER URL [PLAYER URL]...
//
// PLAYER as for play.mjs, or `tab`: a watch page in another tab of the first page's browser, opened when the first one
// plays. Ends when FILE is gone. `state`, `mode` and the rest of `codecast` are the watch page's own account of itself.
import fs from 'node:fs';
import { PLAYERS, stage } from './latency/stage.mjs';

const LOOK_MS = 250;
/** A page that stops answering must not hold up the others. */
const ANSWER_MS_MAX = 5000;

const [file, ...rest] = process.argv.slice(2);
const watched = [];
for (let i = 0; i < rest.length; i += 2) watched.push([rest[i], rest[i + 1]]);
if (!file || watched.length === 0 || watched.some(([p, u]) => !(p === 'tab' || PLAYERS.includes(p)) || !u)) {
  console.error('usage: visit.mjs FILE PLAYER URL [PLAYER URL]...');
  process.exit(2);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const look = (page) => page.evaluate(() => {
  const { ages, latencyMs, ...seen } = probe.report(0);
  return { ...seen, text: document.body.innerText.slice(0, 1500), ...(window.codecast ?? {}) };
});

const theatre = await stage();
const pages = [];
async function openNext() {
  const [player, url] = watched[pages.length];
  if (player !== 'tab') return pages.push(await theatre.open(player, url));
  const playing = await pages[0].evaluate(() => probe.firstFrameMs() !== null);
  if (playing) pages.push(await theatre.open('page', url, pages[0].context()));
}
try {
  while (fs.existsSync(file)) {
    if (pages.length < watched.length) await openNext();
    const seen = await Promise.all(pages.map((page) => Promise.race([look(page), pause(ANSWER_MS_MAX).then(() => null)]).catch(() => null)));
    seen.forEach((what, page) => { if (what !== null) console.log(JSON.stringify({ page, ...what })); });
    await pause(LOOK_MS);
  }
} finally {
  await theatre.close();
}
