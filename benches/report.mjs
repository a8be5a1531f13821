// Turns what one run of benches/run.sh left behind into Markdown: the figure, its reference in the same run, the ratio.
//   node benches/report.mjs RESULTS_FOLDER "COMMAND" > docs/results/bench-DATE.md
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { cpus, loadavg, release } from 'node:os';
import { join } from 'node:path';

const [folder, command] = process.argv.slice(2);
const read = (name) => {
  const file = join(folder, `${name}.json`);
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : null;
};
const commandOf = (name) => readFileSync(join(folder, `${name}.command`), 'utf8').trim();
const row = (...cells) => console.log(`| ${cells.join(' | ')} |`);
const table = (...heads) => { console.log(); row(...heads); row(...heads.map(() => '---')); };
const of = (s) => (s?.n ? `${s.p50} / ${s.p95} / ${s.p99} / ${s.max}` : 'none');
const ratio = (a, b) => (a && b ? (a / b).toFixed(2) : '-');

console.log(`# Benchmarks of ${new Date().toISOString().slice(0, 10)}

Command: \`${command.trim()}\`. Machine: ${cpus().length} x ${cpus()[0]?.model ?? 'unknown'}, Linux ${release()},
load at the end ${loadavg().map((one) => one.toFixed(1)).join(', ')} (1, 5, 15 minutes).
What each figure means: benches/README.md. Ratios are to the reference in the same run; absolute figures move with the machine.`);

// Criterion's mean, in nanoseconds, from its own folder.
const mean = (group, bench) => {
  const file = join('target', 'criterion', group, bench, 'new', 'estimates.json');
  return existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')).mean.point_estimate : null;
};
const us = (ns) => (ns ? (ns / 1000).toFixed(ns < 1e5 ? 2 : 0) : '-');
if (existsSync(join(folder, 'criterion.txt'))) {
  console.log('\n## Cores (`cargo bench -p benches`)');
  table('bench', 'ours, us', 'reference', 'reference, us', 'ours / reference');
  for (const [group, ours, reference] of [
    ['chunk_reader', 'ours', 'rtmp_crate'], ['mux', 'write_part', 'copy_once'],
    ['playlist_render', 'render', 'reference_gzip'], ['playlist_render', 'gzip_of_a_fresh_render', 'reference_gzip'],
    ['wake', 'answer_1000', 'watch_1000'],
  ]) row(`${group}: ${ours}`, us(mean(group, ours)), reference, us(mean(group, reference)), ratio(mean(group, ours), mean(group, reference)));
}

const base = read('publish-codecast')?.server;
if (base) {
  console.log('\n## One 1080p30 stream of 4 Mbit/s packaged');
  table('server', 'CPU-seconds a minute', 'resident MiB', 'context switches', 'CPU: codecast / this');
  for (const name of readdirSync(folder).filter((f) => /^publish-.*\.json$/.test(f)).map((f) => f.slice(0, -5))) {
    const s = read(name).server;
    if (s) row(name.slice('publish-'.length), s.cpu_seconds_per_minute, s.resident_mib, s.context_switches,
      ratio(base?.cpu_seconds_per_minute, s.cpu_seconds_per_minute));
  }
}

const released = read('release');
if (released) {
  console.log('\n## Last byte of a part in to the first byte of its held playlist out, ms');
  table('waiting viewers', 'all: p50 / p95 / p99 / max', 'first viewer: p50 / p95 / p99 / max', 'before its part', 'unexplained parts');
  for (const p of released.phases) row(p.viewers, of(p.release_ms), of(p.first_viewer_ms), p.before_its_part, p.unknown_parts);
}

const follows = ['follow', 'follow-delta'].map((name) => [name, read(name)]).filter(([, f]) => f);
if (follows.length) {
  console.log('\n## Viewers at the live edge');
  table('run', 'viewers', 'video lateness, ms: p50 / p95 / p99 / max', 'audio lateness, ms', 'delta share', 'playlist bytes each', 'server CPU-s per Gbit', 'server MiB', 'errors');
  for (const [name, f] of follows) row(name, f.viewers, of(f.variant_lateness_ms), of(f.audio_lateness_ms), ratio(f.deltas, f.playlists), Math.round(f.playlist_wire_bytes / Math.max(1, f.playlists)),
    f.server ? (f.server.cpu_seconds / f.gbit).toFixed(3) : '-', f.server?.resident_mib ?? '-', JSON.stringify(f.errors));
}

const starts = [1, 2, 3, 4, 5].map((n) => [n, read(`timed-${n}`)]).filter(([, t]) => t);
if (starts.length) {
  console.log('\n## The timed publisher, five starts (360p30), ms');
  table('start', 'paint to coded unit: p50 / p95 / p99 / max', 'grid instant to socket: p50 / p95 / p99 / max', 'late', 'skipped');
  for (const [n, t] of starts) row(n, of(t.encoder_delay_ms), of(t.source_delay_ms), t.late_frames, t.skipped_frames);
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
/** A machine that shows fewer pictures a second of 30 measures itself. */
const FPS_MIN = 24;
const fps = (one) => (one.latencyMs.n / (one.seconds - one.warmupS - one.firstFrameMs / 1000)).toFixed(1);

/** Whether a figure is within its target; `runs` are those that it comes from. */
function verdict(value, target, runs = []) {
  if (!(value > 0)) return 'no figure';
  if (runs.some((one) => fps(one) < FPS_MIN)) return `not judged: fewer than ${FPS_MIN} pictures a second, the machine was busy`;
  return value <= target ? 'met' : 'missed';
}
const rounds = (kind, server) => [1, 2, 3].map((n) => read(`${kind}-${server}-${n}`)).filter((one) => one?.latencyMs);

/** Of several rounds, the median of each figure. */
function glass(kind, server) {
  const all = rounds(kind, server);
  if (!all.length) return null;
  const of_ = (figure) => median(all.map((one) => one.latencyMs[figure]));
  return { rounds: all.length, p50: of_('p50'), p95: of_('p95'), p99: of_('p99'), max: of_('max'), fps: all.map(fps).join(', ') };
}

function byWhip(kind, what) {
  const [ours, floor] = [glass(kind, 'codecast'), glass(kind, 'forwarder')];
  console.log(`\n## WHIP to WHEP, Chromium to Chromium, 720p30, ${what}: glass to glass, ms\n\nThe median of the rounds.`);
  table('server', 'rounds', 'p50 / p95 / p99 / max', 'pictures a second', 'p50: codecast / this', 'p95: codecast / this');
  for (const [name, one] of [['codecast', ours], ['forwarder on libdatachannel', floor]]) {
    row(name, one?.rounds ?? 0, one ? `${one.p50} / ${one.p95} / ${one.p99} / ${one.max}` : 'none', one?.fps ?? '-', ratio(ours?.p50, one?.p50), ratio(ours?.p95, one?.p95));
  }
  console.log(`\nTarget: p50 at most 1.3 times the forwarder's: ${verdict(ours?.p50 / floor?.p50, 1.3, [...rounds(kind, 'codecast'), ...rounds(kind, 'forwarder')])}.`);
}

function byRtmp() {
  console.log('\n## RTMP to WHEP in Chromium, 720p30: glass to glass, ms');
  table('source', 'p50 / p95 / p99 / max', 'pictures a second', 'of it before the socket, p50', 'server, network and viewer, p50', 'target', '');
  for (const [what, name, target] of [['without B-frames', 'rtmp', 40], ['with B-frames, through the transcoder', 'rtmp-bframes', 250]]) {
    const seen = read(name), before = read(`source-${name}`)?.source_delay_ms?.p50;
    if (!seen?.latencyMs) row(what, 'none', '-', before ?? '-', '-', target, 'no figure');
    else {
      const rest = before === undefined ? null : Math.round((seen.latencyMs.p50 - before) * 10) / 10;
      row(what, of(seen.latencyMs), fps(seen), before ?? '-', rest ?? '-', target, verdict(rest, target, [seen]));
    }
  }
}

function joins() {
  console.log('\n## First picture by WHEP, from the request, in one warm browser, ms');
  table('keyframe every', 'joins', 'failed', 'p50 / p95 / max', 'target for p95', '');
  for (const gop of [2, 8]) {
    const one = read(`joins-${gop}`), s = one?.firstFrameMs;
    row(`${gop} s`, s?.n ?? 0, one?.failures.length ?? '-', s?.n ? `${s.p50} / ${s.p95} / ${s.max}` : 'none', 250, verdict(s?.p95, 250));
  }
}

if (readdirSync(folder).some((f) => /^(whip|rtmp|joins)-/.test(f))) {
  byWhip('whip', 'pictures alone');
  byWhip('whip-sound', 'with sound, which the forwarder lets no picture wait for');
  byRtmp();
  joins();
}

console.log('\n## Command lines\n\n```');
for (const f of readdirSync(folder).filter((f) => f.endsWith('.command')).sort()) console.log(`${f.slice(0, -8)}: ${commandOf(f.slice(0, -8))}`);
console.log('```');
