// Plays a live stream in Debian's Chromium over a line whose rate changes, and says which rungs a viewer saw: one line of JSON.
//
//   node tests/tools/rungs.mjs PLAYER URL SECONDS:KBIT [SECONDS:KBIT]...
//
// PLAYER as in play.mjs. Each phase lasts SECONDS with at most KBIT kilobits a second towards the player, 0 for no limit; a
// change of phase takes nothing away that is on its way. `phases` tells of each, by `WIDTHxHEIGHT` in order of appearance and
// with the seconds that each was shown; stalls and seeks are of the whole run (latency/probe.js).
import { PLAYERS, stage } from './latency/stage.mjs';

const LOOK_MS = 100;
const ANSWER_MS_MAX = 15_000;

const [player, url, ...rest] = process.argv.slice(2);
const phases = rest.map((text) => text.split(':').map(Number));
if (!PLAYERS.includes(player) || !url || phases.length === 0 || phases.some(([seconds, kbit]) => !(seconds > 0) || !(kbit >= 0))) {
  console.error(`usage: rungs.mjs PLAYER URL SECONDS:KBIT...   with PLAYER one of ${PLAYERS.join(', ')}`);
  process.exit(2);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const within = (ms, what, promise) => Promise.race([promise, pause(ms).then(() => { throw new Error(`${what}: no answer within ${ms} ms`); })]);

let status = 0;
const theatre = await stage().catch((error) => { console.error(error.message); process.exit(2); });
try {
  const page = await within(ANSWER_MS_MAX, url, theatre.open(player, url));
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('Network.enable');
  const told = [];
  for (const [seconds, kbit] of phases) {
    // -1 is no limit; towards the server there is none.
    const downloadThroughput = kbit === 0 ? -1 : kbit * 125;
    await devtools.send('Network.emulateNetworkConditions', { offline: false, latency: 0, downloadThroughput, uploadThroughput: -1 });
    const shown = [], until = Date.now() + seconds * 1000;
    while (Date.now() < until) {
      const [size, name] = await within(ANSWER_MS_MAX, 'look', page.evaluate(() => {
        const video = document.querySelector('video');
        return [`${video?.videoWidth ?? 0}x${video?.videoHeight ?? 0}`, window.codecast?.shown ?? window.shown?.() ?? ''];
      }));
      const key = name ? `${size} ${name}` : size;
      if (shown.at(-1)?.[0] !== key) shown.push([key, 0]);
      shown.at(-1)[1] += LOOK_MS / 1000;
      await pause(LOOK_MS);
    }
    told.push({ seconds, kbit, shown: shown.map(([size, s]) => [size, +s.toFixed(1)]) });
  }
  const report = await within(ANSWER_MS_MAX, 'probe', page.evaluate(() => probe.report(3)));
  if (!report.shownFrames) status = 1;
  console.log(JSON.stringify({ player, url, phases: told, ...report }));
  if (process.env.SHOT) await page.screenshot({ path: process.env.SHOT });
} catch (error) {
  console.log(JSON.stringify({ player, url, error: error.message }));
  status = 1;
} finally {
  await theatre.close();
}
process.exit(status);
