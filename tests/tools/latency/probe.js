// Runs inside every page under test, before the page's own scripts, after the functions of timecode.mjs (stage.mjs
// joins the two). Watches whatever <video> the page has, and only watches: it never plays, seeks or changes speed.
// `probe.report(warmupS)` answers what a viewer saw so far.

/** Between two animation frames. */
const STEP_MAX_S = 1;
/** Longer without another frame, the picture stands, whatever the clock of the video and its events say: browsers play sound on over
 *  a hole in the picture. The slowest rung has 5 pictures a second. */
const STANDS_MS = 500;

const seen = {
  video: null, fromMs: 0, firstFrameMs: null, firstTimeS: null, shown: 0, unread: 0, ages: [],
  playedS: 0, clockS: 0, stalls: 0, stalledMs: 0, stalledSince: null, stood: [], shownMs: null, seeks: 0, rateMin: 1, rateMax: 1, errors: [],
};

// The painted area alone, 8 by 8 pixels a cell: small enough to read back for every frame.
const small = new OffscreenCanvas(COLS * 8, ROWS * 8);
const pixels = small.getContext('2d', { willReadFrequently: true, alpha: false });

function readTimeCode(video) {
  pixels.drawImage(video, 0, 0, video.videoWidth * WIDTH_SHARE, video.videoHeight * HEIGHT_SHARE, 0, 0, small.width, small.height);
  const data = pixels.getImageData(0, 0, small.width, small.height).data;
  return read((column, row) => data[((row * 8 + 4) * small.width + column * 8 + 4) * 4 + 1]);
}

function frameShown(video, shownMs) {
  if (video !== seen.video) return;
  seen.firstFrameMs ??= Math.round(shownMs - seen.fromMs);
  seen.firstTimeS ??= video.currentTime;
  seen.shown++;
  if (seen.shownMs !== null && shownMs - seen.shownMs > STANDS_MS) seen.stood.push(Math.round(shownMs - seen.shownMs));
  seen.shownMs = shownMs;
  const painted = readTimeCode(video);
  if (painted === null) seen.unread++;
  else seen.ages.push({ atMs: shownMs - seen.fromMs, ageMs: age(painted, performance.timeOrigin + performance.now()) });
  video.requestVideoFrameCallback((next) => frameShown(video, next));
}

/** Stalls and seeks count from the first frame on: before it, a player is joining. */
function watch(video) {
  seen.video = video;
  const started = () => seen.firstFrameMs !== null && video === seen.video;
  video.addEventListener('waiting', () => {
    if (started() && seen.stalledSince === null) { seen.stalls++; seen.stalledSince = performance.now(); }
  });
  video.addEventListener('playing', () => {
    if (seen.stalledSince !== null) seen.stalledMs += Math.round(performance.now() - seen.stalledSince);
    seen.stalledSince = null;
  });
  video.addEventListener('seeking', () => { if (started()) seen.seeks++; });
  video.addEventListener('ratechange', () => {
    seen.rateMin = Math.min(seen.rateMin, video.playbackRate);
    seen.rateMax = Math.max(seen.rateMax, video.playbackRate);
  });
  video.addEventListener('error', () => { if (video.error) seen.errors.push(`video: ${video.error.message || video.error.code}`); });
  video.requestVideoFrameCallback((shown) => frameShown(video, shown));
}

// A page may put its video in late, or replace it. An animation frame is the soonest that could be shown anyway.
(function look() {
  const video = document.querySelector('video');
  if (video && video !== seen.video) watch(video);
  const step = (video?.currentTime ?? 0) - seen.clockS;
  if (step > 0 && step < STEP_MAX_S) seen.playedS += step; // a longer one is a seek, which plays nothing
  seen.clockS += step;
  requestAnimationFrame(look);
})();

/** How often and how long the picture stood, to this moment. */
function stands() {
  const open = seen.shownMs === null ? 0 : Math.round(performance.now() - seen.shownMs);
  const stood = open > STANDS_MS ? [...seen.stood, open] : seen.stood;
  return { stood: stood.length, stoodMs: stood.reduce((sum, ms) => sum + ms, 0), stoodMsMax: Math.max(0, ...stood) };
}

const tally = (names) => names.reduce((counts, name) => ({ ...counts, [name]: (counts[name] ?? 0) + 1 }), {});

window.probe = {
  /** The first frame is counted from here; without it, from the start of the navigation. */
  mark() { seen.fromMs = performance.now(); },
  error(text) { seen.errors.push(text); },
  firstFrameMs: () => seen.firstFrameMs,
  report(warmupS) {
    const video = seen.video, quality = video?.getVideoPlaybackQuality();
    const settled = seen.ages.filter((a) => a.atMs >= seen.firstFrameMs + warmupS * 1000).map((a) => a.ageMs);
    // One picture in 256 passes the check by chance: pictures without a time code must not look like latency.
    const coded = seen.shown > 0 && seen.unread < seen.shown / 2 && settled.length > 0;
    return {
      firstFrameMs: seen.firstFrameMs, frames: quality?.totalVideoFrames ?? 0, droppedFrames: quality?.droppedVideoFrames ?? 0, shownFrames: seen.shown,
      currentTimeAdvancedS: seen.firstTimeS === null ? 0 : +(video.currentTime - seen.firstTimeS).toFixed(3),
      playedS: +seen.playedS.toFixed(3), stalls: seen.stalls, stalledMs: seen.stalledMs + Math.round(seen.stalledSince === null ? 0 : performance.now() - seen.stalledSince),
      ...stands(),
      seeks: seen.seeks, rateMin: seen.rateMin, rateMax: seen.rateMax,
      latencyMs: coded ? summary(settled) : null, unreadFrames: seen.unread,
      width: video?.videoWidth ?? 0, height: video?.videoHeight ?? 0,
      audioTracks: null, audioBytes: video?.webkitAudioDecodedByteCount ?? 0,
      errors: tally(seen.errors), ...window.playerFacts?.(),
    };
  },
};
